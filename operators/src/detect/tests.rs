use super::*;
use crate::testing::{SECOND, Setup};
use drivetrain_schemas::reading::Meta;

/// Runs samples a second apart; what is said: (detector, kind, start, end, observed, score, severity, diff).
type Said = (Detector, AnomalyKind, i64, Option<i64>, i64, i64, u8, isize);

fn run(setup: &Setup, rows: &[[i64; 4]]) -> Vec<Said> {
    let cfg = setup.build();
    let mut state = State::new(&cfg).unwrap();
    let meta =
        Meta { vehicle: "v".into(), texts: vec![], driver: None, trip: None, fleet: None, quality: None, tags: None };
    let (vehicle, meta) = (Arc::from("v"), Arc::new(meta));
    let mut facts = Facts::default();
    for (i, values) in rows.iter().enumerate() {
        let sample = Sample { at: i as i64 * SECOND, interval: SECOND, meta: &meta, values };
        step(&cfg, &vehicle, &mut state, &sample, &mut facts);
    }
    let said = |(a, diff): &(AnomalyFact, isize)| {
        let seconds = |at| at / SECOND;
        let ended = a.ended_at.map(seconds);
        (a.detector, a.kind, seconds(a.started_at), ended, a.observed, a.score, a.severity, *diff)
    };
    facts.anomalies.iter().map(said).collect()
}

fn only(keep: Detector) -> Setup {
    let mut setup = Setup::default();
    let d = &mut setup.detectors;
    match keep {
        Detector::Range => (d.zscore, d.stuck) = Default::default(),
        Detector::Zscore => (d.range, d.stuck) = Default::default(),
        Detector::Stuck => (d.range, d.zscore) = Default::default(),
    }
    setup
}

#[test]
fn range_opens_worsens_and_closes() {
    use AnomalyKind::{High, Low};
    // Normal from -1.0 to 2.0: a width of 3.0, at one decimal.
    let rows = [20, 21, NULL, 50, 49, 20, -11].map(|t| [NULL, NULL, NULL, t]);
    let r = Detector::Range;
    assert_eq!(
        run(&only(r), &rows),
        [
            (r, High, 1, None, 21, 33, 0, 1),
            (r, High, 1, None, 21, 33, 0, -1),
            (r, High, 1, None, 50, 1000, 2, 1),
            (r, High, 1, None, 50, 1000, 2, -1),
            (r, High, 1, Some(5), 50, 1000, 2, 1),
            (r, Low, 6, None, -11, 33, 0, 1),
        ]
    );
}

#[test]
fn zscore_needs_three_normal_values_and_learns_anew() {
    let z = Detector::Zscore;
    let g = |values: &[i64]| values.iter().map(|v| [*v, NULL, NULL, NULL]).collect::<Vec<_>>();
    // Median 0, MAD 0.05: a score of 1.0 / (1.4826 × 0.05).
    let learnt = [-100_000, 100_000, 0, 50_000, -50_000];
    let said = run(&only(z), &g(&[&learnt[..], &[1_000_000, 0, 50_000, -50_000]].concat()));
    let spike = |ended, diff| (z, AnomalyKind::Spike, 5, ended, 1_000_000, 13_489, 2, diff);
    assert_eq!(said, [spike(None, 1), spike(None, -1), spike(Some(6), 1)]);
    // Two normal ones in a row are not enough.
    let said = run(&only(z), &g(&[&learnt[..], &[1_000_000, 0, 50_000, 1_000_000, 0]].concat()));
    assert_eq!(said, [spike(None, 1)]);
    // Six abnormal ones in a row, the window's length; the seventh is the first of another normal.
    let said = run(&only(z), &g(&[&learnt[..], &[1_000_000; 12]].concat()));
    assert_eq!(said.last().map(|s| (s.2, s.3, s.7)), Some((5, Some(11), 1)));
}

#[test]
fn stuck_while_moving() {
    let s = Detector::Stuck;
    let row = |speed, t| [NULL, NULL, speed, t];
    // Five seconds without change; then doubled; then another value.
    let mut rows: Vec<_> = (0..11).map(|_| row(5000, 7)).collect();
    rows.push(row(5000, 8));
    let stuck = |ended, score, diff| (s, AnomalyKind::Stuck, 0, ended, 7, score, 0, diff);
    let expected = [
        stuck(None, 1000, 1),
        stuck(None, 1000, -1),
        stuck(None, 2000, 1),
        stuck(None, 2000, -1),
        stuck(Some(11), 2000, 1),
    ];
    assert_eq!(run(&only(s), &rows), expected);
    let parked: Vec<_> = (0..30).map(|_| row(0, 7)).collect();
    assert_eq!(run(&only(s), &parked), []);
}
