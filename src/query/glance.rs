//! Numbers and durations as people read them at a glance.

/// `200,374`.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2 s`, `41 s`, `3 min`, `5 h`, `2 days`: in the largest unit that is there at least twice, for a glance.
pub(crate) fn short_duration(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(86_400.0, "days"), (3_600.0, "h"), (60.0, "min")];
    let seconds = seconds.max(0.0);
    match UNITS.iter().find(|(length, _)| seconds >= 2.0 * length) {
        Some((length, unit)) => format!("{:.0} {unit}", (seconds / length).floor()),
        None => format!("{:.0} s", seconds.floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_for_a_glance() {
        let numbers = [0, 999, 1000, 200_374, -1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "200,374", "-1,234,567"]);
        let durations = [-1.0, 2.9, 119.0, 120.0, 7_199.0, 7_200.0, 172_800.0].map(short_duration);
        assert_eq!(durations, ["0 s", "2 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
