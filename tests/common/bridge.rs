//! Bridge ports: the library's functions once from Rust and once from C, and what `ip` and `bridge` say.

use super::api::{C, Made, NONE, Outcome, Rust, TapApi, outcome, strdup, take_string};
use super::link::links;
use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use virnetdevtap::bridge::{self, Coalesce, NativeMode, OvsConfig, PortConfig, Switch, VlanConfig};
use virnetdevtap::capi;
use virnetdevtap::capi::types::{virMacAddr, virNetDevCoalesce, virNetDevVPortProfile, virNetDevVlan};
use virnetdevtap::tap::{CreateFlags, NameRequest, interface_name};

pub const USE_MAC_FOR_BRIDGE: u32 = 4;
pub const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
pub const INTERFACE_ID: [u8; 16] = [0x11; 16];
pub const INTERFACE_ID_TEXT: &str = "11111111-1111-1111-1111-111111111111";
pub const VM_ID: [u8; 16] = [0xab; 16];
pub const VM_ID_TEXT: &str = "abababab-abab-abab-abab-abababababab";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Linux,
    OpenVswitch,
    Midonet,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Port {
    pub bridge: String,
    pub kind: Kind,
    pub vlan: Option<VlanConfig>,
    pub isolated: bool,
    pub mtu: u32,
    pub profile: &'static str,
}

pub fn port(bridge: &str) -> Port {
    Port { bridge: bridge.to_owned(), kind: Kind::Linux, vlan: None, isolated: false, mtu: 0, profile: "" }
}

impl Port {
    pub fn isolated(self) -> Self {
        Self { isolated: true, ..self }
    }

    pub fn mtu(self, mtu: u32) -> Self {
        Self { mtu, ..self }
    }

    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub fn vlan(self, tag: u32) -> Self {
        self.vlans(false, &[tag], NativeMode::Default, 0)
    }

    pub fn vlans(self, trunk: bool, tags: &[u32], native_mode: NativeMode, native_tag: u32) -> Self {
        Self { vlan: Some(VlanConfig { trunk, tags: tags.to_vec(), native_mode, native_tag }), ..self }
    }

    fn config(&self) -> Outcome<PortConfig> {
        let vlan = self.vlan.clone();
        let switch = match self.kind {
            Kind::Linux => Switch::Linux { vlan, isolated: self.isolated },
            Kind::OpenVswitch => Switch::OpenVswitch(OvsConfig {
                interface_id: INTERFACE_ID,
                profile_id: Some(self.profile.to_owned()).filter(|profile| !profile.is_empty()),
                vm_id: Some(VM_ID),
                mac: Some(MAC),
                vlan,
            }),
            Kind::Midonet => Switch::Midonet(INTERFACE_ID),
        };
        let mtu = Some(self.mtu).filter(|mtu| *mtu != 0);
        Ok(PortConfig { bridge: interface_name(self.bridge.as_bytes())?, switch, mtu })
    }

    pub fn c(&self) -> CPort {
        let name = CString::new(self.bridge.clone()).unwrap();
        let mut tags = self.vlan.as_ref().map(|vlan| vlan.tags.clone()).unwrap_or_default();
        let vlan = self.vlan.as_ref().map(|vlan| virNetDevVlan {
            trunk: vlan.trunk,
            nTags: tags.len() as i32,
            tag: tags.as_mut_ptr(),
            nativeMode: vlan.native_mode as i32,
            nativeTag: vlan.native_tag,
        });
        // SAFETY: plain C data, for which all zero bytes are a value
        let mut profile: virNetDevVPortProfile = unsafe { std::mem::zeroed() };
        profile.virtPortType = match self.kind {
            Kind::Linux => -1,
            Kind::OpenVswitch => 3,
            Kind::Midonet => 4,
        };
        profile.interfaceID = INTERFACE_ID;
        for (target, byte) in profile.profileID.iter_mut().zip(self.profile.bytes()) {
            *target = byte as libc::c_char;
        }
        CPort { name, _tags: tags, vlan, profile: Some(profile).filter(|_| self.kind != Kind::Linux), port: self.clone() }
    }
}

/// The same for C.
pub struct CPort {
    pub name: CString,
    _tags: Vec<u32>,
    pub vlan: Option<virNetDevVlan>,
    pub profile: Option<virNetDevVPortProfile>,
    pub port: Port,
}

pub fn pointer<T>(value: Option<&T>) -> *const T {
    value.map_or(ptr::null(), |value| &raw const *value)
}

/// What create makes.
#[derive(Debug)]
pub struct Plugged {
    pub tap: Made,
    pub mtu: u32,
    pub coalesce: Option<Coalesce>,
}

pub trait BridgeApi: TapApi {
    fn attach(&self, tap: &str, port: &Port) -> Outcome<u32>;
    fn reattach(&self, tap: &str, port: &Port, force: bool) -> Outcome<u32>;
    fn create_with(
        &self,
        name: Option<&str>,
        mac: Option<[u8; 6]>,
        queues: usize,
        flags: u32,
        port: &Port,
        coalesce: Option<Coalesce>,
    ) -> Outcome<Plugged>;

    fn create_in(&self, name: &str, flags: u32, port: &Port) -> Outcome<Plugged> {
        self.create_with(Some(name), Some(MAC), 1, flags, port, None)
    }
}

impl BridgeApi for Rust {
    fn attach(&self, tap: &str, port: &Port) -> Outcome<u32> {
        Ok(bridge::attach(&interface_name(tap.as_bytes())?, &port.config()?)?)
    }

    fn reattach(&self, tap: &str, port: &Port, force: bool) -> Outcome<u32> {
        Ok(bridge::reattach(&interface_name(tap.as_bytes())?, &port.config()?, force)?)
    }

    fn create_with(
        &self,
        name: Option<&str>,
        mac: Option<[u8; 6]>,
        queues: usize,
        flags: u32,
        port: &Port,
        coalesce: Option<Coalesce>,
    ) -> Outcome<Plugged> {
        let request = NameRequest::parse(name.map(str::as_bytes))?;
        let flags = CreateFlags::from_bits(flags).unwrap();
        let made = bridge::create(&request, mac, None, queues, flags, &port.config()?, coalesce.as_ref())?;
        let tap = Made { name: made.tap.name().to_string(), queues: made.tap.into_queues() };
        Ok(Plugged { tap, mtu: made.mtu, coalesce: made.coalesce })
    }
}

const UNTOUCHED: u32 = 4711;

fn mtu_of(result: Outcome<()>, mtu: u32) -> Outcome<u32> {
    assert_eq!(result.is_err(), mtu == UNTOUCHED, "actualMTU is written on success only");
    result.map(|()| mtu)
}

impl BridgeApi for C {
    fn attach(&self, tap: &str, port: &Port) -> Outcome<u32> {
        let (tap, port, mac) = (CString::new(tap).unwrap(), port.c(), virMacAddr { addr: MAC });
        let (vlan, profile, isolated, mut mtu) =
            (pointer(port.vlan.as_ref()), pointer(port.profile.as_ref()), u32::from(port.port.isolated), UNTOUCHED);
        // SAFETY: strings, structs that live until the call is over, 16 bytes, a number to write to
        let rc = unsafe {
            capi::virNetDevTapAttachBridge(
                tap.as_ptr(),
                port.name.as_ptr(),
                &raw const mac,
                VM_ID.as_ptr(),
                profile,
                vlan,
                isolated,
                port.port.mtu,
                &raw mut mtu,
            )
        };
        mtu_of(outcome(rc), mtu)
    }

    fn reattach(&self, tap: &str, port: &Port, force: bool) -> Outcome<u32> {
        let (tap, port, mac) = (CString::new(tap).unwrap(), port.c(), virMacAddr { addr: MAC });
        let (vlan, profile, isolated, mut mtu) =
            (pointer(port.vlan.as_ref()), pointer(port.profile.as_ref()), u32::from(port.port.isolated), UNTOUCHED);
        // SAFETY: as above
        let rc = unsafe {
            capi::virNetDevTapReattachBridge(
                tap.as_ptr(),
                port.name.as_ptr(),
                &raw const mac,
                VM_ID.as_ptr(),
                profile,
                vlan,
                isolated,
                port.port.mtu,
                &raw mut mtu,
                force.into(),
            )
        };
        mtu_of(outcome(rc), mtu)
    }

    fn create_with(
        &self,
        name: Option<&str>,
        mac: Option<[u8; 6]>,
        queues: usize,
        flags: u32,
        port: &Port,
        coalesce: Option<Coalesce>,
    ) -> Outcome<Plugged> {
        let mut ifname = name.map_or(ptr::null_mut(), |name| strdup(&CString::new(name).unwrap()));
        let given = ifname;
        let (port, mac) = (port.c(), mac.map(|addr| virMacAddr { addr }));
        let mut slots = vec![-7; queues];
        let mut mtu = UNTOUCHED;
        // SAFETY: both are 22 numbers
        let to_c = |values: Coalesce| unsafe { std::mem::transmute::<Coalesce, virNetDevCoalesce>(values) };
        let mut in_out = coalesce.map(to_c);
        // SAFETY: as above, a string from malloc() or NULL, and as many slots as queues
        let rc = unsafe {
            capi::virNetDevTapCreateInBridgePort(
                port.name.as_ptr(),
                &raw mut ifname,
                pointer(mac.as_ref()),
                VM_ID.as_ptr(),
                ptr::null(),
                slots.as_mut_ptr(),
                queues,
                pointer(port.profile.as_ref()),
                pointer(port.vlan.as_ref()),
                u32::from(port.port.isolated),
                in_out.as_mut().map_or(ptr::null_mut(), |values| &raw mut *values),
                port.port.mtu,
                &raw mut mtu,
                flags,
            )
        };
        let result = outcome(rc);
        if result.is_err() {
            assert!(slots.iter().all(|&fd| fd == -1), "{slots:?}");
            assert_eq!(ifname, given, "a failing call leaves the name");
            assert_eq!(in_out, coalesce.map(to_c), "and the numbers");
        }
        let name = take_string(ifname);
        let mtu = mtu_of(result, mtu)?;
        // SAFETY: the call has handed the files over
        let queues = slots.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        // SAFETY: both are 22 numbers
        let to_rust = |values: virNetDevCoalesce| unsafe { std::mem::transmute::<virNetDevCoalesce, Coalesce>(values) };
        Ok(Plugged { tap: Made { name: name.unwrap(), queues }, mtu, coalesce: in_out.map(to_rust) })
    }
}

/// What the bridge has of the things that a call must not change; and of its ports, the names.
pub fn bridge_state(bridge: &str) -> String {
    let links = links();
    let link = links.iter().find(|link| link["ifname"] == bridge).unwrap();
    let ports = links.iter().filter(|link| link["master"] == bridge);
    let names: Vec<_> = ports.filter_map(|port| port["ifname"].as_str()).collect();
    format!("mtu {} address {} ports {names:?}", link["mtu"], link["address"])
}

/// Asserts that the call leaves the bridge as it was.
pub fn same_bridge<T>(bridge: &str, call: impl FnOnce() -> T) -> T {
    let before = bridge_state(bridge);
    let result = call();
    assert_eq!(before, bridge_state(bridge));
    result
}

pub fn master(name: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/class/net/{name}/master")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// Runs bridge(8) with these words; it has to succeed.
pub fn bridge_words(words: &str) {
    let status = std::process::Command::new("bridge").args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "bridge {words}");
}

/// An option of a port, as sysfs has it.
pub fn brport(name: &str, option: &str) -> String {
    std::fs::read_to_string(format!("/sys/class/net/{name}/brport/{option}")).unwrap().trim().to_owned()
}

/// A persistent tap that nobody holds.
pub fn spare_tap(api: &dyn BridgeApi, name: &str) {
    drop(api.create(Some(name), None, 1, NONE | super::api::PERSIST).unwrap());
}
