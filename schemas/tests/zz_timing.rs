use drivetrain_schemas::catalogue::*;
use drivetrain_schemas::decode::*;
use drivetrain_schemas::reading::*;
use std::sync::Arc;
struct Sink(i64);
impl Accept for Sink {
    fn reading(&mut self, h: Head, _: &Arc<Meta>, v: &[i64]) { self.0 ^= h.at ^ v[0]; }
    fn trip(&mut self, _: TripPayload) {}
    fn reject(&mut self, r: Reject) { panic!("{r:?}") }
}
#[test]
fn timing() {
    let names = ["speed_kmh","g_force_long","g_force_lat","rpm","lat","lon","fuel","temp","throttle","brake","odo","volt"];
    let configs = names.iter().map(|n| (n.to_string(), SignalConfig::default())).collect();
    let cat = Arc::new(Catalogue::new(&configs).unwrap());
    let ctx = SourceContext { name: "t".into(), ..Default::default() };
    let mut d = Decoder::new(&ctx, &cat).unwrap();
    let recs: Vec<String> = (0..1000).map(|i| format!(r#"{{"vehicle_id":"vehicle-{:05}","driver_id":"driver-{:04}","at":"2026-05-01T12:00:{:02}.{:03}Z","speed_kmh":{}.1,"g_force_long":-0.{:02},"g_force_lat":0.02,"rpm":2150,"lat":48.1234567,"lon":11.1234567,"fuel":55.5,"temp":90.25,"throttle":12,"brake":0,"odo":123456.7,"volt":13.8}}"#, i, i, i % 60, i, i % 200, i % 100)).collect();
    println!("{} bytes", recs[0].len());
    let origin = Arc::new(Origin { source: "t".into(), name: "t".into(), partition: 0 });
    let (mut c, mut s) = (IntakeCounts::default(), Sink(0));
    for round in 0..5 {
        let t = std::time::Instant::now();
        for _ in 0..200 { for r in &recs {
            let record = Record { origin: &origin, position: 1, timestamp: None, key: None, headers: &[], body: Body::Json(r.as_bytes()) };
            d.decode(&record, &mut c, &mut s);
        } }
        println!("round {round}: {:.0} ns/record {}", t.elapsed().as_nanos() as f64 / 200_000.0, s.0);
    }
}
