//! Everything that takes apart what comes from outside, for the fuzzers in `fuzz/` and the tests here: whatever it is
//! given, nothing panics, grows without bounds, or comes out otherwise than it went in. Not in the library that is built for
//! use.

use crate::IfName;
use crate::kernel::bridge::{FdbEntry, PORT_OPTIONS, Vlan};
use crate::kernel::features::Layout;
use crate::kernel::link::Link;
use crate::kernel::{counters, names, netlink};
use crate::state::check_record;
use crate::tap::{NameRequest, interface_name, reserve};

/// What was received at once from a netlink socket. How many messages there are in it that are whole.
pub fn netlink(datagram: &[u8]) -> usize {
    let mut whole = 0;
    for message in netlink::messages(datagram) {
        let Ok(message) = message else { return whole };
        whole += 1;
        let _ = message.verdict().map(|verdict| verdict.map_err(|refusal| refusal.to_string()));
        payload(message.payload);
    }
    whole
}

fn payload(payload: &[u8]) {
    if let Some(link) = Link::decode(payload) {
        assert!(link.describe().len() < payload.len() + 32);
        for option in PORT_OPTIONS {
            let _ = option.read(&link.port_data);
        }
        if payload.len().is_multiple_of(4) {
            let unknown = [7, 0, 0xfe, 0x3f, 1, 2, 3, 0];
            assert_eq!(Link::decode(&[payload, &unknown].concat()), Some(link));
        }
    }
    if let Ok(vlans) = Vlan::decode(payload) {
        assert!(vlans.iter().all(|vlan| vlan.vid < 4096));
    }
    let index = payload.get(4..8).and_then(|index| index.try_into().ok()).map_or(0, i32::from_ne_bytes);
    let _ = FdbEntry::decode(payload, index);
    let _ = counters::decode(payload);
    let _ = names::decode(payload);
}

/// What two ioctls of ethtool answer: the strings of a string set, and a bit set. The first two bytes are the length of the
/// strings.
pub fn features(input: &[u8]) {
    let Some((len, rest)) = input.split_first_chunk() else { return };
    let (strings, words) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let words: Vec<u32> = words.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    let _ = Layout::decode(strings).read(&words);
}

/// A file in a state directory. Whether it is a record.
pub fn record(file: &[u8]) -> bool {
    std::str::from_utf8(file).is_ok_and(check_record)
}

/// A name that a caller gives, or a template for one.
pub fn name(name: &[u8]) {
    if let Ok(valid) = IfName::new(name) {
        assert_eq!(valid.as_bytes(), name);
        assert!((1..16).contains(&name.len()) && !name.iter().any(|byte| b"/:%\0 \n".contains(byte)));
    }
    assert_eq!(interface_name(name).is_ok(), IfName::new(name).is_ok());
    match NameRequest::parse(Some(name)) {
        Ok(NameRequest::Exact(exact)) => assert_eq!(exact.as_bytes(), name),
        Ok(NameRequest::Generate(template)) => {
            let made = template.try_each(|name| Ok(Some(*name))).unwrap();
            assert!(IfName::new(made.as_bytes()).is_ok());
        }
        Err(e) => assert!(e.to_string().len() < 400, "{e}"),
    }
    let _ = std::str::from_utf8(name).map(reserve);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    /// Real messages, answers and records, and what fuzzers have found: `fuzz/seeds`.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.collect();
        files.sort();
        assert!(!files.is_empty());
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    fn seed(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
        proptest::sample::select(seeds(target))
    }

    /// A seed of which some bytes are others, and the end may be missing.
    fn mutated(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
        (seed(target), changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(mut bytes, changes, end, cut)| {
            if bytes.is_empty() {
                return bytes;
            }
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        })
    }

    #[test]
    fn every_seed() {
        assert!(seeds("netlink").iter().all(|seed| netlink(seed) > 0));
        assert!(seeds("record").iter().all(|seed| record(seed)));
        for seed in seeds("features") {
            features(&seed);
        }
        for seed in seeds("names") {
            name(&seed);
        }
    }

    /// What is cut short is never taken for whole.
    #[test]
    fn parts_of_datagrams() {
        for seed in seeds("netlink") {
            let mut ends = 0;
            let whole = netlink(&seed);
            for len in 0..seed.len() {
                let last = netlink::messages(&seed[..len]).last();
                ends += usize::from(last.is_none_or(|last| last.is_ok()));
                assert!(netlink(&seed[..len]) <= whole);
            }
            // between two messages, or in the padding of the last
            assert!(ends <= whole + 3, "{ends} ends, {whole} messages");
        }
    }

    /// Nor are attributes: half a link is none.
    #[test]
    fn parts_of_links() {
        let mut links = 0;
        for seed in seeds("netlink") {
            for message in netlink::messages(&seed).flatten() {
                let Some(whole) = Link::decode(message.payload) else { continue };
                links += 1;
                let good = (0..message.payload.len()).filter(|len| Link::decode(&message.payload[..*len]).is_some());
                // only where an attribute ends: in its padding, and before the next has its length and type
                assert!(good.count() <= 7 * (1 + attributes(message.payload)), "{whole:?}");
            }
        }
        assert!(links > 3);
    }

    fn attributes(payload: &[u8]) -> usize {
        crate::kernel::attr::attrs(&payload[16..]).count()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn mutated_messages(datagram in mutated("netlink")) {
            netlink(&datagram);
        }

        #[test]
        fn mutated_features(answer in mutated("features")) {
            features(&answer);
        }

        #[test]
        fn mutated_records(file in mutated("record")) {
            record(&file);
        }

        #[test]
        fn mutated_names(bytes in mutated("names")) {
            name(&bytes);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            netlink(&bytes);
            payload(&bytes);
            features(&bytes);
            record(&bytes);
            name(&bytes);
        }

        #[test]
        fn any_name(text in "[a-z%d/.é ]{0,18}") {
            name(text.as_bytes());
        }
    }

    fn cases() -> u32 {
        let is_set = |name| std::env::var(name).as_deref() == Ok("1");
        match () {
            () if is_set("VIRNETDEVTAP_TEST_VM") => 50, // a slow machine, and nothing here depends on the kernel
            () if is_set("VIRNETDEVTAP_DEEP") => 20_000,
            () => 1_000,
        }
    }
}
