//! Writes a sample as JSON, by hand and from integers, so that the bytes are the same everywhere and nothing is
//! allocated for a record.

use super::vehicle::Sample;

/// Appends `value / 10^decimals` with all its decimals.
pub(super) fn fixed(out: &mut Vec<u8>, value: i64, decimals: u32) {
    let mut digits = [0u8; 24];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    let mut written = 0;
    while rest > 0 || written <= decimals {
        if written == decimals && decimals > 0 {
            at -= 1;
            digits[at] = b'.';
        }
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        written += 1;
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn two(out: &mut Vec<u8>, value: i64) {
    out.push(b'0' + (value / 10 % 10) as u8);
    out.push(b'0' + (value % 10) as u8);
}

/// Writes times of one day after another; the date is worked out once a day.
#[derive(Debug, Default)]
pub(super) struct Clock {
    day: Option<i64>,
    date: String,
}

impl Clock {
    /// Appends the time as `2026-05-01T08:00:00.000Z`.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, at: i64) {
        const DAY: i64 = 86_400_000_000;
        let day = at.div_euclid(DAY);
        if self.day != Some(day) {
            self.day = Some(day);
            self.date = drivetrain_schemas::time::format_date(at);
        }
        let ms = at.rem_euclid(DAY) / 1_000;
        out.extend_from_slice(self.date.as_bytes());
        out.push(b'T');
        two(out, ms / 3_600_000);
        out.push(b':');
        two(out, ms / 60_000 % 60);
        out.push(b':');
        two(out, ms / 1_000 % 60);
        out.push(b'.');
        out.push(b'0' + (ms / 100 % 10) as u8);
        two(out, ms % 100);
        out.push(b'Z');
    }
}

/// Appends the signals and the closing brace, behind the time.
pub(super) fn signals(out: &mut Vec<u8>, s: &Sample) {
    field(out, br#"","speed_kmh":"#, s.speed / 10, 2);
    field(out, br#","g_force_long":"#, s.g_long, 3);
    field(out, br#","g_force_lat":"#, s.g_lat, 3);
    field(out, br#","latitude":"#, s.lat, 7);
    field(out, br#","longitude":"#, s.lon, 7);
    field(out, br#","heading":"#, s.heading / 10, 1);
    field(out, br#","engine_rpm":"#, s.rpm, 0);
    field(out, br#","fuel_level":"#, s.fuel / 10, 2);
    field(out, br#","odometer_km":"#, s.odometer / 1_000, 3);
    out.push(b'}');
}

fn field(out: &mut Vec<u8>, name: &[u8], value: i64, decimals: u32) {
    out.extend_from_slice(name);
    fixed(out, value, decimals);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times() {
        for (value, decimals, text) in
            [(0, 0, "0"), (0, 2, "0.00"), (-5, 2, "-0.05"), (12345, 3, "12.345"), (100, 0, "100"), (-90, 1, "-9.0")]
        {
            let mut out = Vec::new();
            fixed(&mut out, value, decimals);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        let mut out = Vec::new();
        Clock::default().write(&mut out, 1_777_622_400_250_000);
        assert_eq!(String::from_utf8(out).unwrap(), "2026-05-01T08:00:00.250Z");
    }
}
