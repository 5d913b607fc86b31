//! Whole numbers in annotations.

use std::fmt::Display;
use std::str::FromStr;

/// A number from `from` to `to`; the error says so and what holds `instead`.
pub(super) fn parse<T>(text: &str, from: T, to: T, instead: &str) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display + Copy,
{
    let number = text.trim().parse().ok().filter(|number| (&from..=&to).contains(&number));
    number.ok_or_else(|| format!("allowed is a whole number from {from} to {to}; {instead}"))
}
