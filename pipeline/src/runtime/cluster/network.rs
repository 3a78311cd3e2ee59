//! timely on connections that are ours: it is handed sockets that have been greeted, so that nobody else can talk to it
//! and nothing waits in it for a process that never comes.

use std::any::Any;
use std::net::TcpStream;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Hooks};

/// This process's place in timely's cluster, and a connection to each other one.
pub(in crate::runtime) struct Network {
    pub(super) process: usize,
    /// By process; none to itself.
    pub(super) sockets: Vec<Option<TcpStream>>,
}

impl Network {
    /// What `workers` local workers are built from, and what holds the connections' threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(in crate::runtime) fn build(
        self,
        workers: usize,
    ) -> Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>), String> {
        let hooks = Hooks::default();
        let locals = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
        let (builders, guard) = initialize_networking_from_sockets(locals, self.sockets, self.process, workers, hooks)
            .map_err(|e| format!("timely's connections: {e}"))?;
        Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard)))
    }
}
