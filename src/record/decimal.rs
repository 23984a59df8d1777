//! Decimal numbers as PostgreSQL's `numeric` keeps them: compared, added and multiplied without loss.

use num_bigint::BigInt;
use std::cmp::Ordering;
use std::fmt;

/// A decimal number: a whole number, and how many of its digits stand after the point.
#[derive(Clone, Debug)]
pub struct Decimal {
    digits: BigInt,
    scale: u32,
}

/// PostgreSQL's `numeric` has at most this many digits before the point, and fewer after it.
const DIGITS_MAX: usize = 131_072;

impl Decimal {
    pub const ZERO: Decimal = Decimal { digits: BigInt::ZERO, scale: 0 };

    /// Reads a number as JSON or PostgreSQL writes it. `None` for what is no number, `NaN` and `Infinity` included, or what
    /// no `numeric` can hold.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (sign, unsigned) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || whole.len() > DIGITS_MAX {
            return None;
        }
        let digits: BigInt = format!("{sign}{whole}{fraction}").parse().ok()?;
        if digits == BigInt::ZERO {
            return Some(Self::ZERO);
        }
        let scale = i64::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if scale.unsigned_abs() > DIGITS_MAX as u64 {
            return None;
        }
        let shift = u32::try_from(scale.unsigned_abs()).ok()?;
        Some(if scale < 0 {
            Self { digits: digits * power_of_ten(shift), scale: 0 }
        } else {
            Self { digits, scale: shift }
        })
    }

    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let scale = self.scale.max(other.scale);
        Self { digits: self.digits_at(scale) + other.digits_at(scale), scale }
    }

    /// The product with a whole number.
    #[must_use]
    pub fn times(&self, factor: i64) -> Self {
        Self { digits: &self.digits * factor, scale: self.scale }
    }

    #[must_use]
    pub fn thousandth(&self) -> Self {
        Self { digits: self.digits.clone(), scale: self.scale + 3 }
    }

    /// With at most so many digits after the point; halves go away from zero, as PostgreSQL's `round` does.
    #[must_use]
    pub fn rounded(&self, scale: u32) -> Self {
        if self.scale <= scale {
            return self.clone();
        }
        let unit = power_of_ten(self.scale - scale);
        let half: BigInt = &unit / 2;
        let away = if self.digits < BigInt::ZERO { -half } else { half };
        Self { digits: (&self.digits + away) / unit, scale }
    }

    fn digits_at(&self, scale: u32) -> BigInt {
        &self.digits * power_of_ten(scale - self.scale)
    }
}

fn power_of_ten(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        self.digits_at(scale).cmp(&other.digits_at(scale))
    }
}

impl fmt::Display for Decimal {
    /// As PostgreSQL prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.scale as usize;
        let digits = self.digits.magnitude().to_string();
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        let sign = if self.digits < BigInt::ZERO { "-" } else { "" };
        let point = if scale == 0 { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn numbers_are_equal_by_value() {
        for (one, other) in
            [("1.10", "11e-1"), ("0", "-0.000"), ("1e3", "1000"), ("2.5E-4", "0.00025"), ("0e999999999", "0")]
        {
            assert_eq!(decimal(one), decimal(other));
        }
        assert_ne!(decimal("0.1"), decimal("0.1000000000000000055511151231257827021181583404541015625"));
        assert!(decimal("-2") < decimal("-1.9"));
        for text in ["", "NaN", "Infinity", "-", ".5", "1e", "1e999999999", "1_0", "+1", "0x1"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        for (number, rounded) in [
            ("0.00005", "0.0001"),
            ("0.00004999", "0.0000"),
            ("-0.00005", "-0.0001"),
            ("1.5", "1.5"),
            ("99.99995", "100.0000"),
        ] {
            assert_eq!(decimal(number).rounded(4).to_string(), rounded);
        }
    }

    proptest! {
        #[test]
        fn sums_and_products_are_those_of_whole_numbers(a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000, factor in 0_i64..5000) {
            let of = |n: i64| decimal(&format!("{n}e-3"));
            prop_assert_eq!(of(a).plus(&of(b)), of(a + b));
            prop_assert_eq!(of(a).times(factor), of(a * factor));
            prop_assert_eq!(decimal(&a.to_string()).thousandth(), of(a));
            prop_assert_eq!(decimal(&of(a).to_string()), of(a));
        }
    }
}
