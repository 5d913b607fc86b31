//! The language in which people say when a circuit breaker opens: Traefik's, whole.
//!
//! ```text
//! NetworkErrorRatio() > 0.30 || LatencyAtQuantileMS(50.0) > 100 && !(ResponseCodeRatio(500, 600, 0, 600) <= 0.5)
//! ```
//!
//! - [`Expression`]: what was said; shown in a canonical form that is read back to the same.
//! - `lexer`, `parser`: from text, with bounds on everything, since the text is any user's.
//!
//! What the metrics are measured over, and what follows from an expression that holds, is the proxy's business.

mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use std::fmt;

pub use parser::ParseError;

/// The longest text, in bytes: as written, and in the canonical form.
pub const MOST_BYTES: usize = 4096;
/// How deep parentheses and `!` may be nested.
pub const MOST_DEPTH: usize = 32;
/// The most comparisons in one expression.
pub const MOST_COMPARISONS: usize = 64;

/// A condition on the metrics of a Service.
///
/// Made by parsing, it keeps the bounds above, and [`And`](Self::And) and [`Or`](Self::Or) have at least two parts.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// All parts hold: `a && b`. Binds tighter than `||`.
    And(Vec<Expression>),
    /// One part holds: `a || b`.
    Or(Vec<Expression>),
    /// It does not hold: `!a`.
    Not(Box<Expression>),
    /// A metric compared with a number. Text may have them the other way round.
    Compare {
        /// The left side.
        metric: Metric,
        /// How they are compared.
        op: Op,
        /// The right side: finite, not negative.
        value: f64,
    },
}

/// What can be measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Metric {
    /// `NetworkErrorRatio()`: the share of answers that tell of a broken or late connection, 0 to 1.
    NetworkErrorRatio,
    /// `LatencyAtQuantileMS(50.0)`: milliseconds within which this percentage (0 to 100) of requests was answered.
    LatencyAtQuantileMs(f64),
    /// `ResponseCodeRatio(500, 600, 0, 600)`: how many answers had a status in one range, divided by those in another.
    /// A range has its lower bound in it and its upper bound not.
    ResponseCodeRatio {
        /// First status counted.
        from: u16,
        /// First status no longer counted; not below `from`.
        to: u16,
        /// First status divided by.
        divided_by_from: u16,
        /// First status no longer divided by; not below `divided_by_from`.
        divided_by_to: u16,
    },
}

/// How a metric is compared with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `==`
    Eq,
    /// `!=`
    Ne,
}

impl Op {
    /// Whether `left op right`.
    #[expect(clippy::float_cmp, reason = "whoever writes == gets ==")]
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Gt => left > right,
            Self::Ge => left >= right,
            Self::Lt => left < right,
            Self::Le => left <= right,
            Self::Eq => left == right,
            Self::Ne => left != right,
        }
    }

    /// The same comparison with its sides swapped.
    fn mirrored(self) -> Self {
        match self {
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Eq | Self::Ne => self,
        }
    }
}

/// The canonical form: one space around operators, no parentheses but those needed and those after `!`.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(parts) => joined(f, parts, " && ", |part| matches!(part, Self::And(_) | Self::Or(_))),
            Self::Or(parts) => joined(f, parts, " || ", |part| matches!(part, Self::Or(_))),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::Compare { metric, op, value } => write!(f, "{metric} {op} {}", Number(*value)),
        }
    }
}

fn joined(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expression],
    between: &str,
    wrapped: impl Fn(&Expression) -> bool,
) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(between)?;
        }
        if wrapped(part) {
            write!(f, "({part})")?;
        } else {
            write!(f, "{part}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkErrorRatio => f.write_str("NetworkErrorRatio()"),
            Self::LatencyAtQuantileMs(quantile) => write!(f, "LatencyAtQuantileMS({})", Number(*quantile)),
            Self::ResponseCodeRatio { from, to, divided_by_from, divided_by_to } => {
                write!(f, "ResponseCodeRatio({from}, {to}, {divided_by_from}, {divided_by_to})")
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Eq => "==",
            Self::Ne => "!=",
        })
    }
}

/// Shows a number with as many digits as it takes to read the same number back, and no rows of zeros.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0.0 || (1e-5..1e16).contains(&self.0) {
            write!(f, "{}", self.0.abs())
        } else {
            write!(f, "{:e}", self.0)
        }
    }
}
