//! JSON as text (RFC 8259). Numbers are kept as they are written, and members in their order, so that what is read and
//! written again is the same, also what a newer version has put there.

use super::{Object, Parsed, Value};
use std::fmt::{self, Display, Write};

/// Nothing of ours has more than five levels.
const DEEPEST: u32 = 64;
/// Nothing of ours has more than thirty members.
const MOST_MEMBERS: usize = 500;

impl Value {
    /// Reads a whole text. The error says where it is none.
    pub(crate) fn parse(text: &str) -> Parsed<Self> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0).filter(|_| reader.peek().is_none());
        value.ok_or_else(|| format!("it is not JSON at byte {}", reader.at))
    }
}

/// Each function reads what it is named after, from `at` on; None: that does not stand there.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, which is not yet read.
    fn peek(&mut self) -> Option<u8> {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.byte()
    }

    fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    /// Passes over these bytes; the text of them.
    fn skip(&mut self, wanted: fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.byte().is_some_and(wanted) {
            self.advance(1);
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Reads this byte if it is the next.
    fn eat(&mut self, byte: u8) -> bool {
        let there = self.byte() == Some(byte);
        self.advance(usize::from(there));
        there
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(depth).map(Value::Object),
            b'[' => self.array(depth).map(Value::Array),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => self.number().map(Value::Number),
            _ => {
                let start = self.at;
                let value = match self.skip(|byte| byte.is_ascii_lowercase()) {
                    "null" => Value::Null,
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    _ => {
                        self.at = start;
                        return None;
                    }
                };
                Some(value)
            }
        }
    }

    fn object(&mut self, depth: u32) -> Option<Object> {
        let mut object = Object::default();
        self.list(b'}', |reader| {
            reader.peek().filter(|next| *next == b'"')?;
            let name = reader.string()?;
            reader.peek().filter(|next| *next == b':')?;
            reader.advance(1);
            object.set(&name, reader.value(depth.saturating_add(1))?);
            (object.0.len() <= MOST_MEMBERS).then_some(())
        })?;
        Some(object)
    }

    fn array(&mut self, depth: u32) -> Option<Vec<Value>> {
        let mut array = Vec::new();
        self.list(b']', |reader| {
            array.push(reader.value(depth.saturating_add(1))?);
            Some(())
        })?;
        Some(array)
    }

    /// What is between brackets, with commas.
    fn list(&mut self, end: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.advance(1);
        if self.peek()? != end {
            element(self)?;
            while self.peek()? == b',' {
                self.advance(1);
                element(self)?;
            }
        }
        self.eat(end).then_some(())
    }

    fn number(&mut self) -> Option<String> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        self.text.get(start..self.at).map(str::to_owned)
    }

    fn digits(&mut self) -> Option<()> {
        (!self.skip(|byte| byte.is_ascii_digit()).is_empty()).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        self.advance(1);
        let mut string = String::new();
        loop {
            string.push_str(self.skip(|byte| byte >= b' ' && byte != b'"' && byte != b'\\'));
            match self.byte()? {
                b'"' => break,
                b'\\' => string.push(self.escape()?),
                _ => return None,
            }
        }
        self.advance(1);
        Some(string)
    }

    fn escape(&mut self) -> Option<char> {
        self.advance(1);
        let escape = self.byte()?;
        self.advance(1);
        Some(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first.into());
                }
                let second = (self.eat(b'\\') && self.eat(b'u')).then(|| self.hex())??;
                char::decode_utf16([first, second]).next()?.ok()?
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at.checked_add(4)?)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        self.advance(4);
        u16::from_str_radix(digits, 16).ok()
    }
}

/// The text, for people too: a line for each member.
impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self, f, 0)
    }
}

fn write(value: &Value, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    match value {
        Value::Null => f.write_str("null"),
        Value::Bool(true) => f.write_str("true"),
        Value::Bool(false) => f.write_str("false"),
        Value::Number(number) => f.write_str(number),
        Value::String(string) => write_string(string, f),
        Value::Array(array) => write_list(f, depth, ['[', ']'], array, write),
        Value::Object(object) => write_list(f, depth, ['{', '}'], &object.0, |(name, value), f, depth| {
            write_string(name, f)?;
            f.write_str(": ")?;
            write(value, f, depth)
        }),
    }
}

fn write_list<T>(
    f: &mut fmt::Formatter<'_>,
    depth: usize,
    brackets: [char; 2],
    elements: &[T],
    write: fn(&T, &mut fmt::Formatter<'_>, usize) -> fmt::Result,
) -> fmt::Result {
    let [open, close] = brackets;
    f.write_char(open)?;
    for (i, element) in elements.iter().enumerate() {
        new_line(f, if i == 0 { "" } else { "," }, depth.saturating_add(1))?;
        write(element, f, depth.saturating_add(1))?;
    }
    if !elements.is_empty() {
        new_line(f, "", depth)?;
    }
    f.write_char(close)
}

fn new_line(f: &mut fmt::Formatter<'_>, after: &str, depth: usize) -> fmt::Result {
    f.write_str(after)?;
    f.write_char('\n')?;
    (0..depth).try_for_each(|_| f.write_str("  "))
}

fn write_string(string: &str, f: &mut impl Write) -> fmt::Result {
    f.write_char('"')?;
    for c in string.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A string as JSON has it.
pub(crate) fn quoted(string: &str) -> String {
    let mut quoted = String::new();
    let _ = write_string(string, &mut quoted); // a String takes everything
    quoted
}
