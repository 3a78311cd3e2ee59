//! Units of measurement and their exact conversion (rational factors, no floats).

/// A unit, by its dimension and its exact relation to the dimension's base: base = value × num/den + offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: &'static str,
    pub dimension: &'static str,
    /// Factor to the base unit of the dimension, as a fraction in lowest terms.
    pub num: i64,
    pub den: i64,
    /// Added after the factor, as a fraction (for temperatures).
    pub offset_num: i64,
    pub offset_den: i64,
}

const fn unit(name: &'static str, dimension: &'static str, num: i64, den: i64) -> Unit {
    Unit { name, dimension, num, den, offset_num: 0, offset_den: 1 }
}

/// All known units. Sources: the SI brochure; the international yard and pound agreement (1 mi = 1609.344 m);
/// standard gravity 9.80665 m/s2.
pub const UNITS: &[Unit] = &[
    unit("m/s", "speed", 1, 1),
    unit("km/h", "speed", 5, 18),
    unit("mph", "speed", 1397, 3125),
    unit("kn", "speed", 463, 900),
    unit("m/s2", "acceleration", 1, 1),
    unit("g", "acceleration", 980_665, 100_000),
    unit("m", "length", 1, 1),
    unit("km", "length", 1000, 1),
    unit("mi", "length", 201_168, 125),
    unit("ft", "length", 381, 1250),
    unit("deg", "angle", 1, 1),
    unit("s", "time", 1, 1),
    unit("ms", "time", 1, 1000),
    unit("h", "time", 3600, 1),
    unit("rpm", "rotation", 1, 1),
    unit("percent", "ratio", 1, 1),
    unit("ratio", "ratio", 100, 1),
    unit("l", "volume", 1, 1),
    unit("gal", "volume", 473_176_473, 125_000_000),
    unit("V", "voltage", 1, 1),
    unit("A", "current", 1, 1),
    unit("kPa", "pressure", 1, 1),
    unit("bar", "pressure", 100, 1),
    unit("deg/s", "angular_speed", 1, 1),
    unit("celsius", "temperature", 1, 1),
    Unit { name: "fahrenheit", dimension: "temperature", num: 5, den: 9, offset_num: -160, offset_den: 9 },
    Unit { name: "kelvin", dimension: "temperature", num: 1, den: 1, offset_num: -5463, offset_den: 20 },
    unit("1", "count", 1, 1),
];

impl Unit {
    pub fn parse(name: &str) -> Option<Unit> {
        UNITS.iter().find(|u| u.name == name).copied()
    }
}

/// The message for a unit that is not known.
pub fn unknown_unit(name: &str) -> String {
    let known: Vec<_> = UNITS.iter().map(|u| u.name).collect();
    format!("{name:?} is not a known unit; known are {}", known.join(", "))
}
