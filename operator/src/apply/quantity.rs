//! Amounts of CPU and memory as Kubernetes reads them (`k8s.io/apimachinery/pkg/api/resource`): the API server writes each in
//! a form of its own, `1000m` as `1` and `1024Mi` as `1Gi`. Pure.

/// What a suffix stands for, in billionths.
const DECIMAL: [(&str, u32); 10] =
    [("n", 0), ("u", 3), ("m", 6), ("", 9), ("k", 12), ("M", 15), ("G", 18), ("T", 21), ("P", 24), ("E", 27)];
/// Powers of 1024, from the first on.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const BILLION: u128 = 1_000_000_000;
/// Billionths in a thousandth, the least that is told apart: a container's resources are rounded up to it.
const THOUSANDTH: u128 = 1_000_000;

/// Whether both are the same amount.
pub(super) fn same(one: &str, other: &str) -> bool {
    one == other || thousandths(one).is_some_and(|amount| thousandths(other) == Some(amount))
}

/// `None`: it is no amount, or none that anybody has. None is below zero.
fn thousandths(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let billionths = digits.checked_mul(unit(suffix)?)?;
    let finest = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some(billionths.div_ceil(finest).div_ceil(THOUSANDTH))
}

/// What a suffix stands for, in billionths.
fn unit(suffix: &str) -> Option<u128> {
    if let Some((_, power)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some(10_u128.pow(*power));
    }
    if let Some(at) = BINARY.iter().position(|known| *known == suffix) {
        return Some(1024_u128.pow(u32::try_from(at).ok()? + 1) * BILLION);
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    10_u128.checked_pow(u32::try_from(exponent + 9).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_the_same_whatever_they_are_written_as() {
        for (one, other) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("+2", "2"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1000k", "1M"),
            ("1000G", "1T"),
            ("1000P", "1E"),
            ("1024Pi", "1Ei"),
            ("1024Ti", "1Pi"),
            ("1Ki", "1024"),
            ("1e3", "1k"),
            ("12E6", "12M"),
            ("1e-3", "1m"),
            ("0", "0m"),
            ("100u", "1m"),
            ("1n", "1m"),
            ("0.0015", "2m"),
            ("not an amount", "not an amount"),
        ] {
            assert!(same(one, other) && same(other, one), "{one} and {other}");
        }
    }

    #[test]
    fn what_differs_is_told_apart() {
        for (one, other) in [
            ("1", "1001m"),
            ("1M", "1Mi"),
            ("1E", "1Ei"),
            ("1m", "1M"),
            ("1", "1x"),
            ("1", ""),
            ("1", "-1"),
            ("1.2.3", "1.23"),
            ("1e", "1"),
            ("1e99", "1e98"),
            ("99999999999999999999E", "99999999999999999998E"),
        ] {
            assert!(!same(one, other) && !same(other, one), "{one} and {other}");
        }
    }
}
