//! From tokens to an [`Expression`], by recursive descent.
//!
//! ```text
//! or         = and { "||" and }
//! and        = operand { "&&" operand }
//! operand    = "!" operand | "(" or ")" | comparison
//! comparison = metric op number | number op metric
//! metric     = "NetworkErrorRatio" "(" ")"
//!            | "LatencyAtQuantileMS" "(" number ")"
//!            | "ResponseCodeRatio" "(" status "," status "," status "," status ")"
//! ```
//!
//! Only `operand` leads back to a rule above it, and it counts how deep it is.

use std::str::FromStr;

use super::lexer::{Lexer, Placed, Token};
use super::{Expression, MOST_BYTES, MOST_COMPARISONS, MOST_DEPTH, Metric, Op};

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Something else should stand there.
    #[error(
        "at character {at}: expected {expected}, found {found}; known functions: NetworkErrorRatio(), \
         LatencyAtQuantileMS(50.0), ResponseCodeRatio(500, 600, 0, 600)"
    )]
    Unexpected {
        /// Which character, the first being 1.
        at: usize,
        /// What is allowed there.
        expected: &'static str,
        /// What stands there, in quotes, or that the text ends.
        found: String,
    },
    /// The text, or its canonical form, is longer than [`MOST_BYTES`].
    #[error(
        "{0} bytes long when written out; at most {MOST_BYTES} are allowed: say it with fewer comparisons"
    )]
    TooLong(usize),
    /// Parentheses or `!` within each other, more than [`MOST_DEPTH`] times.
    #[error("at character {at}: more than {MOST_DEPTH} parentheses or ! within each other; leave some out")]
    TooDeep {
        /// Which character, the first being 1.
        at: usize,
    },
    /// More comparisons than [`MOST_COMPARISONS`].
    #[error("at character {at}: more than {MOST_COMPARISONS} comparisons; leave some out")]
    TooMany {
        /// Which character, the first being 1.
        at: usize,
    },
}

/// How much of a token an error shows.
const MOST_SHOWN: usize = 40;

impl ParseError {
    pub(super) fn unexpected(at: usize, expected: &'static str, found: &str) -> Self {
        let found = if found.is_empty() {
            "the end".to_owned()
        } else if found.len() <= MOST_SHOWN {
            format!("{found:?}")
        } else {
            format!("{:?}…", found.chars().take(MOST_SHOWN).collect::<String>())
        };
        Self::Unexpected { at, expected, found }
    }
}

impl FromStr for Expression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.len() > MOST_BYTES {
            return Err(ParseError::TooLong(text.len()));
        }
        let mut lexer = Lexer::new(text);
        let next = lexer.next()?;
        let mut parser = Parser { lexer, next, comparisons: 0 };
        let expression = parser.or(0)?;
        parser.skip(Token::End, "&&, || or the end")?;
        // What is sent on is the canonical form: it must be readable, too.
        match expression.to_string().len() {
            0..=MOST_BYTES => Ok(expression),
            length => Err(ParseError::TooLong(length)),
        }
    }
}

const COMPARISON: &str = "a comparison such as NetworkErrorRatio() > 0.5";
const OPERATOR: &str = "a comparison such as > 0.5";
const NUMBER: &str = "a number such as 0.5";
const STATUS: &str = "a status code such as 500";

struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Placed<'a>,
    comparisons: usize,
}

impl Parser<'_> {
    fn or(&mut self, depth: usize) -> Result<Expression, ParseError> {
        self.chain(Token::Or, Expression::Or, |parser| parser.and(depth))
    }

    fn and(&mut self, depth: usize) -> Result<Expression, ParseError> {
        self.chain(Token::And, Expression::And, |parser| parser.operand(depth))
    }

    /// One part, or several with `between` between them.
    fn chain(
        &mut self,
        between: Token<'_>,
        join: fn(Vec<Expression>) -> Expression,
        mut part: impl FnMut(&mut Self) -> Result<Expression, ParseError>,
    ) -> Result<Expression, ParseError> {
        let first = part(self)?;
        if self.next.token != between {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.next.token == between {
            self.advance()?;
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn operand(&mut self, depth: usize) -> Result<Expression, ParseError> {
        match self.next.token {
            Token::Not => {
                let depth = self.deeper(depth)?;
                self.advance()?;
                // `!(` is one step down, not two: the canonical form always has the parenthesis.
                let inner =
                    if self.next.token == Token::Open { self.group(depth)? } else { self.operand(depth)? };
                Ok(Expression::Not(Box::new(inner)))
            }
            Token::Open => {
                let depth = self.deeper(depth)?;
                self.group(depth)
            }
            _ => self.comparison(),
        }
    }

    fn group(&mut self, depth: usize) -> Result<Expression, ParseError> {
        self.skip(Token::Open, "(")?;
        let inner = self.or(depth)?;
        self.skip(Token::Close, "&&, || or )")?;
        Ok(inner)
    }

    fn deeper(&self, depth: usize) -> Result<usize, ParseError> {
        if depth < MOST_DEPTH { Ok(depth + 1) } else { Err(ParseError::TooDeep { at: self.next.at }) }
    }

    fn comparison(&mut self) -> Result<Expression, ParseError> {
        let start = self.next.at;
        let (metric, op, value) = match self.next.token {
            Token::Name(_) => {
                let metric = self.metric()?;
                let op = self.op()?;
                (metric, op, self.number(NUMBER)?)
            }
            Token::Number(_) => {
                let value = self.number(NUMBER)?;
                let op = self.op()?.mirrored();
                (self.metric()?, op, value)
            }
            _ => return Err(self.unexpected(COMPARISON)),
        };
        self.comparisons += 1;
        if self.comparisons > MOST_COMPARISONS {
            return Err(ParseError::TooMany { at: start });
        }
        Ok(Expression::Compare { metric, op, value })
    }

    fn metric(&mut self) -> Result<Metric, ParseError> {
        let named = self.next;
        let Token::Name(name) = named.token else {
            return Err(self.unexpected("a function to compare with"));
        };
        if !matches!(name, "NetworkErrorRatio" | "LatencyAtQuantileMS" | "ResponseCodeRatio") {
            return Err(self.unexpected("a known function"));
        }
        self.advance()?;
        self.skip(Token::Open, "(")?;
        let metric = match name {
            "NetworkErrorRatio" => Metric::NetworkErrorRatio,
            "LatencyAtQuantileMS" => self.latency()?,
            _ => {
                let (from, to) = self.statuses()?;
                self.skip(Token::Comma, ", and a second range of status codes")?;
                let (divided_by_from, divided_by_to) = self.statuses()?;
                Metric::ResponseCodeRatio { from, to, divided_by_from, divided_by_to }
            }
        };
        self.skip(Token::Close, ")")?;
        Ok(metric)
    }

    fn latency(&mut self) -> Result<Metric, ParseError> {
        const QUANTILE: &str = "a percentage from 0 to 100";
        let placed = self.next;
        let quantile = self.number(QUANTILE)?;
        if quantile > 100.0 {
            return Err(ParseError::unexpected(placed.at, QUANTILE, placed.text));
        }
        Ok(Metric::LatencyAtQuantileMs(quantile))
    }

    /// A range of statuses: `500, 600`.
    fn statuses(&mut self) -> Result<(u16, u16), ParseError> {
        let from = self.status()?;
        self.skip(Token::Comma, ", and the first status code beyond the range")?;
        let end = self.next;
        let to = self.status()?;
        if to < from {
            let expected = "a range that ends after it begins";
            return Err(ParseError::unexpected(end.at, expected, end.text));
        }
        Ok((from, to))
    }

    fn status(&mut self) -> Result<u16, ParseError> {
        let Token::Number(text) = self.next.token else { return Err(self.unexpected(STATUS)) };
        let status = text.parse().map_err(|_| self.unexpected(STATUS))?;
        self.advance()?;
        Ok(status)
    }

    fn number(&mut self, expected: &'static str) -> Result<f64, ParseError> {
        let Token::Number(text) = self.next.token else { return Err(self.unexpected(expected)) };
        let number: f64 = text.parse().map_err(|_| self.unexpected(expected))?;
        if !number.is_finite() {
            return Err(self.unexpected("a number that is not as large"));
        }
        self.advance()?;
        Ok(number)
    }

    fn op(&mut self) -> Result<Op, ParseError> {
        let Token::Op(op) = self.next.token else { return Err(self.unexpected(OPERATOR)) };
        self.advance()?;
        Ok(op)
    }

    /// Goes past `token`, which must come next.
    fn skip(&mut self, token: Token<'_>, expected: &'static str) -> Result<(), ParseError> {
        if self.next.token == token { self.advance() } else { Err(self.unexpected(expected)) }
    }

    fn advance(&mut self) -> Result<(), ParseError> {
        self.next = self.lexer.next()?;
        Ok(())
    }

    fn unexpected(&self, expected: &'static str) -> ParseError {
        ParseError::unexpected(self.next.at, expected, self.next.text)
    }
}
