//! From text to tokens, one at a time.

use super::{Op, ParseError};

/// A word of the language, as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// A function's name.
    Name(&'a str),
    /// Digits, with a fraction and an exponent if it has them.
    Number(&'a str),
    Op(Op),
    And,
    Or,
    Not,
    Open,
    Close,
    Comma,
    End,
}

/// A token with where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) token: Token<'a>,
    /// Its text; empty at the end.
    pub(super) text: &'a str,
    /// Which character of the text it begins with, the first being 1.
    pub(super) at: usize,
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, at: 1 }
    }

    /// The next token; for ever [`Token::End`] once there is none.
    pub(super) fn next(&mut self) -> Result<Placed<'a>, ParseError> {
        let trimmed = self.rest.trim_start();
        let blank = self.rest.len() - trimmed.len();
        self.take(blank);

        let mut chars = self.rest.chars();
        let (first, second) = (chars.next(), chars.next());
        let (token, length) = match (first, second) {
            (None, _) => (Token::End, 0),
            (Some('('), _) => (Token::Open, 1),
            (Some(')'), _) => (Token::Close, 1),
            (Some(','), _) => (Token::Comma, 1),
            (Some('&'), Some('&')) => (Token::And, 2),
            (Some('|'), Some('|')) => (Token::Or, 2),
            (Some('='), Some('=')) => (Token::Op(Op::Eq), 2),
            (Some('!'), Some('=')) => (Token::Op(Op::Ne), 2),
            (Some('!'), _) => (Token::Not, 1),
            (Some('>'), Some('=')) => (Token::Op(Op::Ge), 2),
            (Some('>'), _) => (Token::Op(Op::Gt), 1),
            (Some('<'), Some('=')) => (Token::Op(Op::Le), 2),
            (Some('<'), _) => (Token::Op(Op::Lt), 1),
            (Some(c), _) if c.is_ascii_alphabetic() || c == '_' => {
                let length = span(self.rest, |c| c.is_ascii_alphanumeric() || c == b'_');
                (Token::Name(&self.rest[..length]), length)
            }
            (Some(c), _) if c.is_ascii_digit() || c == '.' => {
                let length = number(self.rest);
                (Token::Number(&self.rest[..length]), length)
            }
            (Some(c), _) => {
                let expected = match c {
                    '&' => "&&",
                    '|' => "||",
                    '=' => "==",
                    '-' | '+' => "a number without a sign: no metric is negative",
                    _ => "a function, a number, an operator or a parenthesis",
                };
                return Err(ParseError::unexpected(self.at, expected, &self.rest[..c.len_utf8()]));
            }
        };
        let at = self.at;
        Ok(Placed { token, text: self.take(length), at })
    }

    /// Goes on by `bytes`, which end between two characters.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.at += taken.chars().count();
        self.rest = rest;
        taken
    }
}

/// How many bytes at the start of `text` are of a kind. They are ASCII if only ASCII is of that kind.
fn span(text: &str, of_kind: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|&byte| of_kind(byte)).count()
}

/// The length of the number at the start of `text`: digits, fraction, exponent.
fn number(text: &str) -> usize {
    let digits = |from: usize| span(&text[from..], |byte| byte.is_ascii_digit());
    let mut length = digits(0);
    if text[length..].starts_with('.') {
        length += 1;
        length += digits(length);
    }
    if text[length..].starts_with(['e', 'E']) {
        let signed = usize::from(text[length + 1..].starts_with(['+', '-']));
        let exponent = digits(length + 1 + signed);
        if exponent > 0 {
            length += 1 + signed + exponent;
        }
    }
    length
}
