//! Names that callers give, and names that are made up: libvirt's rules of `virNetDevGenerateName`.

use crate::error::{Error, Result};
use crate::host;
use crate::kernel::{IfName, InvalidIfName};
use nix::errno::Errno;
use std::sync::atomic::{AtomicI64, Ordering};

const DEFAULT_TEMPLATE: &[u8] = b"vnet%d";
/// libvirt's prefix for taps.
const PREFIX: &str = "vnet";
/// How many taken names are passed over before giving up.
const ATTEMPTS: u32 = 10_000;

/// The number of the last generated or reserved name. One counter for all templates, as in libvirt; never goes back
/// except to start over, so that a name is not used again soon after its device is gone.
static LAST_ID: LastId = LastId(AtomicI64::new(-1));

#[derive(Debug)]
struct LastId(AtomicI64);

/// Which name a device to be created shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameRequest {
    Exact(IfName),
    Generate(Template),
}

/// A name with a place for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// With a 0 in that place.
    zero: IfName,
    place: usize,
    max_id: i64,
}

impl NameRequest {
    /// None asks for "vnet%d". A name with "%d" and no other "%" is a template; anything else has to be a valid name.
    pub fn parse(name: Option<&[u8]>) -> Result<Self> {
        let name = name.unwrap_or(DEFAULT_TEMPLATE);
        let place = name.iter().position(|&byte| byte == b'%');
        match place.and_then(|place| name.split_at_checked(place)) {
            Some((prefix, [b'%', b'd', suffix @ ..])) if !suffix.contains(&b'%') => {
                Template::new(prefix, suffix, name).map(Self::Generate)
            }
            _ => interface_name(name).map(Self::Exact),
        }
    }
}

impl Template {
    fn new(prefix: &[u8], suffix: &[u8], whole: &[u8]) -> Result<Self> {
        let zero = IfName::of_parts(&[prefix, b"0", suffix]).map_err(|why| refused(whole, why))?;
        let literal = prefix.len().saturating_add(suffix.len());
        let digits = u32::try_from(crate::kernel::MAX_NAME_LEN.saturating_sub(literal)).unwrap_or_default();
        let max_id = 10_i64.saturating_pow(digits).saturating_sub(1).min(i32::MAX.into());
        Ok(Self { zero, place: prefix.len(), max_id })
    }

    /// What is before the number, and what behind it.
    fn parts(&self) -> (&[u8], &[u8]) {
        let (prefix, rest) = self.zero.as_bytes().split_at_checked(self.place).unwrap_or_default();
        (prefix, rest.strip_prefix(b"0").unwrap_or_default())
    }

    /// Offers one name after the other to `take`, which says whether it could have it; returns what `take` made.
    pub(crate) fn try_each<T>(&self, mut take: impl FnMut(&IfName) -> Result<Option<T>>) -> Result<T> {
        for _ in 0..ATTEMPTS {
            if let Some(taken) = take(&self.next()?)? {
                return Ok(taken);
            }
        }
        let (prefix, suffix) = self.parts();
        let template = String::from_utf8_lossy(&[prefix, b"%d", suffix].concat()).into_owned();
        Err(Error::internal(Errno::EEXIST, format!("no unused {template} names available")))
    }

    /// libvirt's own next name in a process that has libvirt, since it knows the names of its running guests; else ours.
    fn next(&self) -> Result<IfName> {
        let (prefix, suffix) = self.parts();
        if let Some(name) = host::libvirt().and_then(|host| host.generate_name(prefix, suffix)) {
            return Ok(name);
        }
        let number = LAST_ID.next(self.max_id).to_string();
        let parts = [prefix, number.as_bytes(), suffix];
        IfName::of_parts(&parts).map_err(|why| refused(&parts.concat(), why))
    }
}

impl LastId {
    fn next(&self, max: i64) -> i64 {
        let next = |last: i64| if last >= max { 0 } else { last.saturating_add(1) };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(0, next)
    }

    fn reserve(&self, name: &str) {
        let id = name.strip_prefix(PREFIX).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        if let Some(id) = id.and_then(|digits| digits.parse::<i32>().ok()) {
            self.0.fetch_max(id.into(), Ordering::Relaxed);
        }
    }
}

/// Keeps a name like "vnet7" from being generated: later ones have higher numbers. Other names are ignored.
pub fn reserve(name: &str) {
    LAST_ID.reserve(name);
}

/// Checks the name of an interface.
pub fn interface_name(name: &[u8]) -> Result<IfName> {
    IfName::new(name).map_err(|why| refused(name, why))
}

/// The error for a name or template that a caller gave.
#[cold]
fn refused(given: &[u8], why: InvalidIfName) -> Error {
    const SHOWN: usize = 64;
    let mut text = String::from_utf8_lossy(given.get(..SHOWN).unwrap_or(given)).into_owned();
    if given.len() > SHOWN {
        text.push_str("...");
    }
    match why {
        InvalidIfName::TooLong => Error::system(Errno::ERANGE, format!("Network interface name '{text}' is too long")),
        why => Error::argument(format!("Network interface name '{text}' is not valid: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_and_names() {
        assert!(matches!(NameRequest::parse(None), Ok(NameRequest::Generate(_))));
        assert!(matches!(NameRequest::parse(Some(b"foo%d")), Ok(NameRequest::Generate(_))));
        assert!(matches!(NameRequest::parse(Some(b"a%db")), Ok(NameRequest::Generate(_))));
        assert!(matches!(NameRequest::parse(Some(b"tap0")), Ok(NameRequest::Exact(_))));
        for bad in [&b""[..], b"a%db%d", b"x%s", b"x%", b"%d%", b"abcdefghijklmno%d", b"a/%d", b"\xff%d", &[b'a'; 5000]] {
            let error = NameRequest::parse(Some(bad)).unwrap_err();
            assert!(error.to_string().len() < 300, "{error}");
        }
        assert_eq!(NameRequest::parse(Some(b"abcdefghijklmno%d")).unwrap_err().errno(), Errno::ERANGE);
    }

    #[test]
    fn numbers_fit_the_template() {
        let NameRequest::Generate(template) = NameRequest::parse(Some(b"abcdefghijklm%d")).unwrap() else { panic!() };
        assert_eq!(template.max_id, 99);
        let NameRequest::Generate(template) = NameRequest::parse(None).unwrap() else { panic!() };
        assert_eq!(template.max_id, i64::from(i32::MAX));
    }

    #[test]
    fn counting() {
        let last = LastId(AtomicI64::new(-1));
        for name in ["vnet41", "vnet7", "vnet", "vnet99x", "vnet-1", "vnet99999999999999999999", "macvtap500"] {
            last.reserve(name);
        }
        assert_eq!(last.next(1000), 42);
        assert_eq!(last.next(43), 43);
        assert_eq!(last.next(43), 0);
    }
}
