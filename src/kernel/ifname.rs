//! The name of a network interface, as the kernel accepts it.

use std::fmt;

/// Longest interface name, without the terminating NUL (`IFNAMSIZ` - 1).
pub(crate) const MAX_LEN: usize = libc::IFNAMSIZ - 1;

/// A valid interface name: 1 to 15 bytes of UTF-8, no `/`, `:`, `%` or white space, neither `.` nor `..`.
///
/// These are the rules of `dev_valid_name()` (net/core/dev.c). `%` is refused besides: the kernel takes it for a
/// template wherever a name is set, so no interface can have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName {
    bytes: [u8; libc::IFNAMSIZ],
    len: u8,
}

/// Why a string cannot be the name of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIfName {
    #[error("it is empty")]
    Empty,
    #[error("it is too long (at most {MAX_LEN} bytes)")]
    TooLong,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("'.' and '..' are reserved")]
    Dots,
    #[error("it contains {0:?}")]
    Character(char),
}

impl IfName {
    /// Checks a name.
    pub fn new(name: &[u8]) -> Result<Self, InvalidIfName> {
        Self::of_parts(&[name])
    }

    /// Checks the name that these make up together.
    pub(crate) fn of_parts(parts: &[&[u8]]) -> Result<Self, InvalidIfName> {
        let mut name = Self { bytes: [0; libc::IFNAMSIZ], len: 0 };
        for &byte in parts.iter().copied().flatten() {
            if usize::from(name.len) == MAX_LEN {
                return Err(InvalidIfName::TooLong);
            }
            if let Some(target) = name.bytes.get_mut(usize::from(name.len)) {
                *target = byte;
                name.len = name.len.saturating_add(1);
            }
        }
        let text = std::str::from_utf8(name.as_bytes()).map_err(|_| InvalidIfName::NotUtf8)?;
        match text {
            "" => Err(InvalidIfName::Empty),
            "." | ".." => Err(InvalidIfName::Dots),
            _ if text.bytes().any(is_refused) => Err(InvalidIfName::Character(first_refused(text))),
            _ => Ok(name),
        }
    }

    /// The name that the kernel wrote into a NUL-padded buffer.
    pub(crate) fn from_kernel(buffer: &[u8]) -> Option<Self> {
        let end = buffer.iter().position(|&b| b == 0).unwrap_or(buffer.len());
        Self::new(buffer.get(..end)?).ok()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// As in the kernel's structs: followed by NULs, one at least.
    pub(crate) fn padded(&self) -> &[u8; libc::IFNAMSIZ] {
        &self.bytes
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// The kernel goes by bytes, and its isspace() counts the byte 0xa0 (lib/ctype.c), which is a part of "\u{e0}" for one.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'/' | b':' | b'%' | b'\0' | b'\x0b' | 0xa0) || byte.is_ascii_whitespace()
}

fn first_refused(text: &str) -> char {
    text.chars().find(|c| c.encode_utf8(&mut [0; 4]).bytes().any(is_refused)).unwrap_or_default()
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_rules() {
        for good in ["a", "tap0", "a23456789012345", "tap-1.5_x", "täp"] {
            assert_eq!(IfName::new(good.as_bytes()).map(|n| n.to_string()), Ok(good.to_string()));
        }
        for (bad, why) in [
            (&b""[..], InvalidIfName::Empty),
            (b"a234567890123456", InvalidIfName::TooLong),
            (&[b'x'; 300], InvalidIfName::TooLong),
            (b"\xff\xfe", InvalidIfName::NotUtf8),
            (b".", InvalidIfName::Dots),
            (b"..", InvalidIfName::Dots),
            (b"a/b", InvalidIfName::Character('/')),
            (b"a:b", InvalidIfName::Character(':')),
            (b"a b", InvalidIfName::Character(' ')),
            (b"a\x0bb", InvalidIfName::Character('\x0b')),
            (b"a\0b", InvalidIfName::Character('\0')),
            (b"x%s", InvalidIfName::Character('%')),
            ("tap\u{e0}".as_bytes(), InvalidIfName::Character('\u{e0}')),
        ] {
            assert_eq!(IfName::new(bad), Err(why));
        }
    }
}
