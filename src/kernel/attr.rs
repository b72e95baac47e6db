//! Netlink attributes: reading them out of a message, and writing a request.
//!
//! The reader takes what it is asked for and skips the rest: an attribute that is new, cut short or of an odd length
//! never spoils its neighbours.

use netlink_packet_core::{Emitable, NLA_TYPE_MASK, NetlinkHeader};

/// `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
const HEADER: usize = 4; // struct nlattr: u16 length with this header, u16 type

/// Walks over the attributes in `bytes`; ends at the first one that does not fit.
pub(crate) fn attrs(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(HEADER..len)?;
        rest = rest.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this kind.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attrs(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
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
    pub(crate) fn finish(mut self, sequence_number: u32) -> Vec<u8> {
        self.header.length = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        self.header.sequence_number = sequence_number;
        if let Some(head) = self.buffer.get_mut(..HEADER_LEN) {
            self.header.emit(head);
        }
        self.buffer
    }
}
