//! The properties of a tap that a hypervisor, or anybody, may have changed meanwhile.

use bitflags::bitflags;

bitflags! {
    /// What was found changed. The bits are those of the C enum `virNetDevTapStateField`: ABI.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Fields: u32 {
        const PERSIST = 1;
        const OWNER = 1 << 1;
        const GROUP = 1 << 2;
        /// VNET_HDR, NO_PI, NAPI
        const FLAGS = 1 << 3;
        const VNET_HDR_SIZE = 1 << 4;
        const VNET_ENDIAN = 1 << 5;
        const OFFLOADS = 1 << 6;
        const FILTERS = 1 << 7;
        const CARRIER = 1 << 8;
        const LINK_TYPE = 1 << 9;
        const MAC = 1 << 10;
        const MTU = 1 << 11;
        const TXQLEN = 1 << 12;
        const UP = 1 << 13;
        /// The bridge, and how the tap is a port of it
        const MASTER = 1 << 14;
        const ALIAS = 1 << 15;
        const NAME = 1 << 16;
        /// The device was gone
        const VANISHED = 1 << 17;
        /// Something could not be put back
        const UNRESTORED = 1 << 18;
        /// The group of interfaces (`ip link set dev X group G`)
        const LINK_GROUP = 1 << 19;
        const ALTNAMES = 1 << 20;
    }
}

/// One property that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub field: Fields,
    /// "owner was 1000, hypervisor left 65534"
    pub what: String,
    /// Something that opening the tap, or every honest hypervisor, brings about.
    pub ordinary: bool,
}

impl Change {
    pub(crate) fn persist(was: bool, now: bool) -> Self {
        Self::found(Fields::PERSIST, "persist flag", &was.to_string(), &now.to_string())
    }

    #[cold]
    fn found(field: Fields, what: &str, was: &str, now: &str) -> Self {
        Self::new(field, format!("{what} was {was}, hypervisor left {now}"))
    }

    pub(crate) fn new(field: Fields, what: impl Into<String>) -> Self {
        Self { field, what: what.into(), ordinary: false }
    }

    pub(crate) fn make_ordinary(&mut self) {
        self.ordinary = true;
    }
}

/// Everything that was found changed.
#[derive(Debug, Default)]
pub(crate) struct Changes(pub Vec<Change>);

impl Changes {
    /// Adds a property if it is not what it was.
    pub(crate) fn compare<T: PartialEq>(
        &mut self,
        field: Fields,
        what: &str,
        was: &T,
        now: &T,
        show: impl Fn(&T) -> String,
    ) -> Option<&mut Change> {
        if was == now {
            return None;
        }
        self.0.push(Change::found(field, what, &show(was), &show(now)));
        self.0.last_mut()
    }
}

/// The fields of all changes.
pub(crate) fn fields(changes: &[Change]) -> Fields {
    changes.iter().fold(Fields::empty(), |all, change| all | change.field)
}
