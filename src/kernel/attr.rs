//! Netlink attributes: reading them out of a message, and writing a request.
//!
//! The reader takes what it is asked for and skips the rest: attributes that are new, and whatever is behind the part of
//! a value that is known. A message that is cut short is refused, since what it does not say would be taken for absent.

use netlink_packet_core::{Emitable, NLA_TYPE_MASK, NetlinkHeader};

/// `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
const HEADER: usize = 4; // struct nlattr: u16 length with this header, u16 type

/// Walks over the attributes in `bytes`; ends with None at one that does not fit.
pub(crate) fn attrs(bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.len() < HEADER {
            return None;
        }
        let attr = split(rest);
        rest = attr.map(|(_, _, rest)| rest).unwrap_or_default();
        Some(attr.map(|(kind, value, _)| (kind, value)))
    })
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::from(u16_at(bytes, 0)?);
    let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
    Some((kind, bytes.get(HEADER..len)?, bytes.get(align(len)..).unwrap_or_default()))
}

/// Hands each attribute to `take`. None: the attributes are cut short, or `take` cannot make anything of one of them.
pub(crate) fn decode<'a>(bytes: &'a [u8], mut take: impl FnMut(u16, &'a [u8]) -> Option<()>) -> Option<()> {
    attrs(bytes).try_for_each(|attr| attr.and_then(|(kind, value)| take(kind, value)))
}

/// The value of the first attribute of this kind.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attrs(bytes).flatten().find_map(|(kind, value)| (kind == wanted).then_some(value))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(array_at(bytes, at)?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(array_at(bytes, at)?))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(array_at(bytes, at)?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(array_at(bytes, at)?))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A string attribute, without the NUL that the kernel ends it with.
pub(crate) fn string(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?).ok()
}

const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// A netlink request under construction.
#[derive(Debug)]
pub(crate) struct Request {
    header: NetlinkHeader,
    buffer: Vec<u8>,
}

impl Request {
    /// `family_header` is the fixed part of the family, such as `struct ifinfomsg`.
    pub(crate) fn new(message_type: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut header = NetlinkHeader::default();
        header.message_type = message_type;
        header.flags = flags;
        let mut request = Self { header, buffer: vec![0; HEADER_LEN] };
        request.pad_and_append(family_header);
        request
    }

    fn pad_and_append(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.buffer.resize(align(self.buffer.len()), 0);
    }

    /// Appends an attribute. Values longer than an attribute can be (64 KiB) never come up here: names, numbers, MACs.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = u16::try_from(value.len().saturating_add(HEADER)).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&len.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.pad_and_append(value);
        self
    }

    pub(crate) fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A NUL-terminated string.
    pub(crate) fn attr_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// An attribute whose value is made of the attributes that `fill` appends.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.buffer.len();
        self.attr(kind, &[]);
        fill(self);
        let len = u16::try_from(self.buffer.len().saturating_sub(start)).unwrap_or(u16::MAX);
        if let Some(field) = self.buffer.get_mut(start..start.saturating_add(2)) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        self
    }

    /// The bytes to send.
    pub(crate) fn finish(&self, sequence_number: u32) -> Vec<u8> {
        let mut header = self.header;
        header.length = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        header.sequence_number = sequence_number;
        let mut bytes = self.buffer.clone();
        if let Some(head) = bytes.get_mut(..HEADER_LEN) {
            header.emit(head);
        }
        bytes
    }
}
