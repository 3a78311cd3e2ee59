//! The mapped paths as a tree, by which one pass over a JSON record finds all of them.
//!
//! Records of a source mostly have the same keys in the same order, so each node remembers which key followed which:
//! a right guess costs one comparison of bytes and no hash. Keys that nothing maps are remembered, too, some of them.

use super::frame::{Frame, Kind as Frames, Slot};
use super::path::{self, Step};
use super::quick::{self, Reach, Spaces};
use crate::json::{self, JsonError, Kind, Scanner, Token};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// What happens to the value below a key or index.
#[derive(Clone, Debug, Default)]
struct Edge {
    key: Box<str>,
    /// The key as it stands in most records.
    token: quick::Token,
    /// The key stands in JSON as it is.
    plain: bool,
    slot: Option<u16>,
    /// Its value is a number for one signal only: it is read at so many decimals when it is found.
    decimals: Option<u32>,
    child: Option<u16>,
    ignore: bool,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Display form of the path that leads here, and the node from which it does.
    path: String,
    parent: u16,
    edges: Vec<Edge>,
    keys: HashMap<Box<str>, u32, FixedState>,
    items: Vec<(u32, Edge)>,
    /// `follow[i + 1]` is the edge that last came behind edge `i`; `follow[0]` the first one.
    follow: Vec<u32>,
    /// Edges of keys that nothing maps.
    strays: usize,
    /// Slots and nodes below.
    slots: Vec<u16>,
    nodes: Vec<u16>,
}

/// Keys that nothing maps which a node remembers, and their longest.
const STRAYS: usize = 64;

impl Node {
    fn add(&mut self, key: &str) -> u32 {
        let next = self.edges.len() as u32;
        let plain = !key.bytes().any(|b| matches!(b, b'"' | b'\\' | 0..0x20));
        self.edges.push(Edge { key: key.into(), token: quick::Token::new(key, plain), plain, ..Edge::default() });
        self.follow.push(next + 1);
        self.keys.insert(key.into(), next);
        next
    }

    /// [`Pass::quickly`], from `at` on behind the edge `before`.
    #[inline(never)]
    fn quickly(&self, reach: &Reach<'_>, slots: &mut [Slot], tags: bool, at: &mut usize, before: &mut usize) -> bool {
        let edges = self.edges.as_slice();
        let next = |place: usize| Some(*self.follow.get(place)? as usize);
        let Some((spaces, mut here)) =
            next(*before).and_then(|guess| edges.get(guess)).and_then(|edge| Spaces::seen(reach, *at, &edge.token))
        else {
            return false;
        };
        let (mut place, mut done) = (*before, false);
        while !done {
            let Some(guess) = next(place) else { break };
            let Some(edge) = edges.get(guess) else { break };
            let Some(value) = quick::member(reach, here, spaces, &edge.token, edge.decimals) else { break };
            match edge.slot {
                _ if edge.child.is_some() => break,
                Some(slot) => {
                    if let Some(place) = slots.get_mut(slot as usize) {
                        *place = value.slot;
                    }
                }
                None if tags && !edge.ignore => break,
                None => {}
            }
            (here, place, done) = (value.next, guess + 1, value.last);
        }
        (*at, *before) = (here, place);
        done
    }

    /// An edge for a key that nothing maps: it is found as quickly then, and leads nowhere.
    #[cold]
    fn remember(&mut self, key: &str) -> Option<u32> {
        (self.strays < STRAYS && key.len() <= STRAYS).then(|| {
            self.strays += 1;
            self.add(key)
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
}

impl Trie {
    pub(crate) fn new() -> Self {
        Trie { nodes: vec![Node { follow: vec![0], ..Node::default() }] }
    }

    /// Reads the value at `steps` into `slot`; without a slot the value is ignored.
    pub(crate) fn add(&mut self, steps: &[Step], slot: Option<u16>) {
        let mut node = 0usize;
        let mut path_so_far = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            path_so_far.push(step.clone());
            let last = i + 1 == steps.len();
            if last {
                let edge = self.edge(node, step);
                match slot {
                    Some(_) => edge.slot = slot,
                    None => edge.ignore = true,
                }
                return;
            }
            let fresh = self.nodes.len() as u16;
            let child = *self.edge(node, step).child.get_or_insert(fresh);
            if child == fresh {
                let path = path::display(&path_so_far);
                let parent = node as u16;
                self.nodes.push(Node { path, parent, follow: vec![0], nodes: vec![fresh], ..Node::default() });
            }
            node = child as usize;
            if let Some(n) = self.nodes.get_mut(node) {
                n.slots.extend(slot);
            }
        }
    }

    /// Has numbers that come into this slot be read at once, at so many decimals. Nobody but one signal may ask for it.
    pub(crate) fn fix(&mut self, slot: u16, decimals: u32) {
        let edges = self.nodes.iter_mut().flat_map(|node| &mut node.edges);
        edges.filter(|edge| edge.slot == Some(slot)).for_each(|edge| edge.decimals = Some(decimals));
    }

    /// Fills in which nodes lie below which; to be called once all paths are added.
    pub(crate) fn finish(mut self) -> Self {
        // Children have higher numbers than their parents.
        for i in (1..self.nodes.len()).rev() {
            let below = self.nodes[i].nodes.clone();
            let parent = self
                .nodes
                .iter()
                .position(|n| n.edges.iter().chain(n.items.iter().map(|(_, e)| e)).any(|e| e.child == Some(i as u16)));
            if let Some(parent) = parent.filter(|p| *p > 0) {
                self.nodes[parent].nodes.extend(below);
            }
        }
        self
    }

    fn edge(&mut self, node: usize, step: &Step) -> &mut Edge {
        let node = &mut self.nodes[node];
        match step {
            Step::Key(key) => {
                let known = node.keys.get(key.as_str()).copied();
                let i = known.unwrap_or_else(|| node.add(key));
                &mut node.edges[i as usize]
            }
            Step::Index(index) => {
                let found = node.items.iter().position(|(n, _)| n == index);
                let i = found.unwrap_or(node.items.len());
                if found.is_none() {
                    node.items.push((*index, Edge::default()));
                }
                &mut node.items[i].1
            }
        }
    }
}

/// One pass over one object. `tags`: note the fields that nothing maps.
pub(crate) struct Pass<'a, 't> {
    pub(crate) trie: &'t mut Trie,
    pub(crate) text: &'a str,
    pub(crate) reach: &'t Reach<'a>,
    pub(crate) frame: &'t mut Frame,
    pub(crate) tags: bool,
}

/// What the trie says of a key: (slot, child node, ignored).
type Found = (Option<u16>, Option<u16>, bool);

impl<'a> Pass<'a, '_> {
    /// Scans the object at which the scanner stands; `depth` containers are open around it.
    ///
    /// # Errors
    /// [`JsonError`] when it is no JSON object.
    pub(crate) fn run(&mut self, scanner: &mut Scanner<'_>, depth: u32) -> Result<(), JsonError> {
        self.object(scanner, 0, depth)
    }

    fn object(&mut self, s: &mut Scanner<'_>, node: u16, depth: u32) -> Result<(), JsonError> {
        let mut more = s.open(b'{', b'}')?;
        let mut before = 0usize;
        while more {
            if self.quickly(s, node, &mut before) {
                return Ok(());
            }
            let from = s.clone();
            let found = match self.guess(s, node, &mut before) {
                Some(found) => Some(found),
                None => {
                    let key = s.member()?;
                    match key.kind {
                        Kind::Text => self.find(node, &mut before, self.span(key)),
                        _ => self.find(node, &mut before, &json::unescape(self.span(key))),
                    }
                }
            };
            let stray = self.member(s, found, depth)?;
            if let Some(value) = stray.filter(|_| self.tags) {
                self.note(node, from.clone().member()?, value);
            }
            more = s.next(b'}')?;
        }
        Ok(())
    }

    /// Reads members as long as each has the key that last came at its place, and a plain value. True: the object is done;
    /// false: the scanner stands at a member that is to be read in the other way.
    #[inline]
    fn quickly(&mut self, s: &mut Scanner<'_>, node: u16, before: &mut usize) -> bool {
        let Some(node) = self.trie.nodes.get(node as usize) else { return false };
        let mut at = s.position();
        let done = node.quickly(self.reach, &mut self.frame.slots, self.tags, &mut at, before);
        s.jump(at);
        done
    }

    fn array(&mut self, s: &mut Scanner<'_>, node: u16, depth: u32) -> Result<(), JsonError> {
        let mut more = s.open(b'[', b']')?;
        let mut index = 0u32;
        while more {
            let items = self.trie.nodes.get(node as usize).map(|n| n.items.as_slice()).unwrap_or_default();
            let found = items.iter().find(|(i, _)| *i == index).map(|(_, e)| (e.slot, e.child, e.ignore));
            let stray = self.member(s, found, depth)?;
            if let Some(value) = stray.filter(|_| self.tags) {
                let path = self.trie.nodes.get(node as usize).map_or("", |n| n.path.as_str());
                self.frame.tag(node, &[path, "[", &index.to_string(), "]"], value);
            }
            index = index.saturating_add(1);
            more = s.next(b']')?;
        }
        Ok(())
    }

    /// Reads one value; returns it when nothing maps it.
    #[inline]
    fn member(&mut self, s: &mut Scanner<'_>, found: Option<Found>, depth: u32) -> Result<Option<Slot>, JsonError> {
        let Some((slot, child, ignore)) = found else { return Ok(Some(s.value(depth + 1)?.into())) };
        let value = match child {
            None => s.value(depth + 1)?.into(),
            Some(child) => match self.nested(s, child, depth + 1)? {
                Ok(whole) => {
                    if let Some(slot) = slot {
                        self.frame.set(slot, whole);
                    }
                    return Ok(None);
                }
                Err(stray) => stray,
            },
        };
        match slot {
            Some(slot) => self.frame.set(slot, value),
            None if !ignore => return Ok(Some(value)),
            None => {}
        }
        Ok(None)
    }

    /// A value with mapped paths below it: Ok with its span when it has been entered, Err when it is another kind.
    fn nested(&mut self, s: &mut Scanner<'_>, child: u16, depth: u32) -> Result<Result<Slot, Slot>, JsonError> {
        // Of duplicate keys the last one wins, with all that stands below.
        let (frame, below) = (&mut *self.frame, self.trie.nodes.get(child as usize));
        if let Some(below) = below {
            below.slots.iter().for_each(|slot| frame.set(*slot, Slot::MISSING));
            if !frame.tags.is_empty() {
                // Also where the earlier one was no container, and thus a tag itself.
                frame.untag(|node, name| below.nodes.contains(&node) || (node == below.parent && name == below.path));
            }
        }
        let objects = below.is_some_and(|n| !n.edges.is_empty());
        let arrays = below.is_some_and(|n| !n.items.is_empty());
        let open = s.peek();
        let start = s.position();
        match open {
            b'{' | b'[' if depth >= json::MAX_DEPTH => Ok(Err(s.value(depth)?.into())),
            b'{' if objects => {
                self.object(s, child, depth).map(|()| Ok(Slot::new(Frames::Object, start, s.position())))
            }
            b'[' if arrays => self.array(s, child, depth).map(|()| Ok(Slot::new(Frames::Array, start, s.position()))),
            _ => Ok(Err(s.value(depth)?.into())),
        }
    }

    /// Takes the key that last came at this place, if it comes again.
    #[inline]
    fn guess(&self, s: &mut Scanner<'_>, node: u16, before: &mut usize) -> Option<Found> {
        let node = self.trie.nodes.get(node as usize)?;
        let guess = *node.follow.get(*before)? as usize;
        let edge = node.edges.get(guess).filter(|e| e.plain)?;
        s.skip_member(&edge.key).then(|| {
            *before = guess + 1;
            (edge.slot, edge.child, edge.ignore)
        })
    }

    #[inline]
    fn find(&mut self, node: u16, before: &mut usize, key: &str) -> Option<Found> {
        let node = self.trie.nodes.get_mut(node as usize)?;
        let known = node.keys.get(key).copied();
        let i = known.or_else(|| node.remember(key))?;
        if let Some(follow) = node.follow.get_mut(*before) {
            *follow = i;
        }
        let i = i as usize;
        *before = i + 1;
        node.edges.get(i).map(|e| (e.slot, e.child, e.ignore))
    }

    #[inline]
    fn span(&self, t: Token) -> &'a str {
        self.text.get(t.start..t.end).unwrap_or("")
    }

    fn note(&mut self, node: u16, key: Token, value: Slot) {
        let unescaped = json::unescape(self.span(key));
        let path = self.trie.nodes.get(node as usize).map_or("", |n| n.path.as_str());
        let parts = ["", path, ".", &*unescaped];
        self.frame.tag(node, if path.is_empty() { &parts[3..] } else { &parts[1..] }, value);
    }
}
