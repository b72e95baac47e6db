//! All that can be read and set about the port that an interface is: remembered, compared, put back.

use super::openvswitch::{self, OvsPort};
use crate::error::{Context, Error, Result};
use crate::json::{Members, json_object};
use crate::kernel::IfName;
use crate::kernel::bridge::{self, BACKUP_PORT, FdbEntry, PORT_OPTIONS, Vlan};
use crate::kernel::link::{self, By, IFLA_MASTER, Link};
use crate::kernel::netlink::{Netlink, Refusal};
use nix::errno::Errno;

/// A port: which master it belongs to, and for a Linux bridge its options, VLANs and fixed forwarding entries.
///
/// What follows from other things is left out: spanning tree state (from the carrier), learned entries, counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub master: Master,
    /// By bridge(8)'s names. Options that this kernel does not know are missing.
    options: Members<u32>,
    vlans: Vec<Vlan>,
    fdb: Vec<FdbEntry>,
    /// Open vSwitch's records for the port.
    pub ovs: Option<OvsPort>,
}

/// The device that a port belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Master {
    pub name: String,
    pub ifindex: i32,
    /// "bridge", "openvswitch", "bond", ...
    pub kind: String,
}

json_object!(Port { master, options or_default, vlans or_default, fdb or_default, ovs });
json_object!(Master { name, ifindex, kind });
json_object!(Vlan { vid, pvid, untagged });
json_object!(FdbEntry { mac, vid, local, flags });

/// The kind of a Linux bridge, and of the device that stands for all bridges of Open vSwitch's kernel datapath.
pub(super) const BRIDGE: &str = "bridge";
pub(super) const OPENVSWITCH: &str = "openvswitch";

impl Port {
    /// A port of Open vSwitch, which with its userspace datapath has no master.
    pub(super) fn openvswitch(ovs: OvsPort) -> Self {
        let master = Master { name: String::new(), ifindex: 0, kind: OPENVSWITCH.to_owned() };
        Self { master, options: Members::default(), vlans: Vec::new(), fdb: Vec::new(), ovs: Some(ovs) }
    }

    /// What people call the bridge.
    pub(super) fn bridge(&self) -> &str {
        self.ovs.as_ref().map_or(&self.master.name, |ovs| &ovs.bridge)
    }
}

/// Reads the port that `link` is. None: it belongs to no master.
pub(crate) fn read(netlink: &mut Netlink, link: &Link) -> Result<Option<Port>> {
    let Some(index) = link.master else { return Ok(None) };
    let failed = || format!("Unable to read the bridge port of {}", name_of(link));
    let master = link::get(netlink, By::Index(index)).context(failed)?;
    let master = master.ok_or_else(|| Error::system(Errno::EAGAIN, failed()))?;
    let mut port = Port {
        master: Master { name: name_of(&master), ifindex: index, kind: kind_of(&master) },
        options: Members::default(),
        vlans: Vec::new(),
        fdb: Vec::new(),
        ovs: None,
    };
    if port.master.kind == OPENVSWITCH
        && let Some(name) = &link.name
    {
        port.ovs = openvswitch::read(name)?;
    }
    if port.master.kind == BRIDGE {
        port.options = options(link);
        port.vlans = vlans(netlink, link.ifindex).context(failed)?;
        port.fdb = bridge::fdb(netlink, link.ifindex, index).context(failed)?;
        port.fdb.retain(|entry| link.mac != entry.mac); // its own address: the bridge adds that by itself
    }
    Ok(Some(port))
}

fn name_of(link: &Link) -> String {
    link.name.map_or_else(|| format!("interface {}", link.ifindex), |name| name.to_string())
}

fn kind_of(link: &Link) -> String {
    link.kind.clone().unwrap_or_default()
}

fn options(link: &Link) -> Members<u32> {
    let read = PORT_OPTIONS.iter().filter_map(|option| {
        let none = (option.name == BACKUP_PORT.name).then_some(0); // of which the kernel does not speak
        Some((option.name.to_owned(), option.read(&link.port_data).or(none)?))
    });
    Members(read.collect())
}

/// None at all where the kernel was built without VLAN filtering.
fn vlans(netlink: &mut Netlink, ifindex: i32) -> std::result::Result<Vec<Vlan>, Errno> {
    match bridge::vlans(netlink, ifindex) {
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        result => result,
    }
}

/// Makes the interface the port that it was: on the same master with the same settings, or on none. Sets only what
/// differs.
///
/// A master that was re-created under its name is taken for the same; one that was renamed, too.
pub(crate) fn apply(netlink: &mut Netlink, ifindex: i32, port: Option<&Port>) -> Result<()> {
    let link = existing(netlink, ifindex)?;
    if let Some(ovs) = port.and_then(|port| port.ovs.as_ref()) {
        let lost = link.master.is_none() && port.is_some_and(|port| port.master.ifindex != 0);
        return apply_ovs(netlink, &link, ovs, lost);
    }
    leave_ovs(netlink, &link)?;
    let link = existing(netlink, ifindex)?;
    let wanted = port.map(|port| find_master(netlink, &port.master, &link)).transpose()?;
    if link.master != wanted {
        set_master(netlink, ifindex, wanted).map_err(|refusal| {
            let on = port.map_or("no bridge".to_owned(), |port| port.master.name.clone());
            Error::system(refusal.errno, format!("Unable to put {} back on {on}{refusal}", name_of(&link)))
        })?;
    }
    let Some(port) = port.filter(|port| port.master.kind == BRIDGE) else { return Ok(()) };
    let link = existing(netlink, ifindex)?;
    let failed = |refusal: Refusal| {
        let text = format!("Unable to put back the port settings of {} on {}{refusal}", name_of(&link), port.master.name);
        Error::system(refusal.errno, text)
    };
    let now = options(&link);
    let differing = PORT_OPTIONS.iter().filter_map(|option| {
        let wanted = port.options.get(option.name)?;
        (now.get(option.name) != Some(wanted)).then_some((*option, *wanted))
    });
    let differing: Vec<_> = differing.collect();
    if !differing.is_empty() {
        bridge::set_port(netlink, ifindex, &differing, &[]).map_err(failed)?;
    }
    set_vlans(netlink, ifindex, &port.vlans).map_err(|(_, refusal)| failed(refusal))?;

    let wanted: Vec<_> = port.fdb.iter().filter(|entry| link.mac != entry.mac).copied().collect();
    set_fdb(netlink, &link, &wanted).map_err(failed)
}

/// Makes these the fixed forwarding entries of the port, besides its own address. First those without a VLAN: the kernel
/// adds and deletes such an entry in each VLAN of the port as well (`br_fdb_add()`, `br_fdb_delete()`).
fn set_fdb(netlink: &mut Netlink, link: &Link, wanted: &[FdbEntry]) -> std::result::Result<(), Refusal> {
    let bridge = link.master.unwrap_or_default();
    let read = |netlink: &mut Netlink| -> std::result::Result<Vec<FdbEntry>, Errno> {
        let mut fixed = bridge::fdb(netlink, link.ifindex, bridge)?;
        fixed.retain(|entry| link.mac != entry.mac);
        Ok(fixed)
    };
    for in_vlans in [false, true] {
        let now = read(netlink)?;
        if now == wanted {
            return Ok(());
        }
        for entry in now.iter().filter(|entry| (entry.vid != 0) == in_vlans && !wanted.contains(entry)) {
            bridge::delete_fdb(netlink, link.ifindex, entry)?;
        }
        let now = read(netlink)?;
        for entry in wanted.iter().filter(|entry| (entry.vid != 0) == in_vlans && !now.contains(entry)) {
            bridge::add_fdb(netlink, link.ifindex, entry)?;
        }
    }
    Ok(())
}

/// `lost`: the kernel's datapath does not have the tap, which may have been made anew; the database has its records still.
fn apply_ovs(netlink: &mut Netlink, link: &Link, ovs: &OvsPort, lost: bool) -> Result<()> {
    let failed = || format!("Unable to put {} back on OVS bridge {}", name_of(link), ovs.bridge);
    let master = link.master.map(|master| link::get(netlink, By::Index(master))).transpose().context(failed)?.flatten();
    if master.is_some_and(|master| kind_of(&master) != OPENVSWITCH) {
        set_master(netlink, link.ifindex, None).context(failed)?;
    }
    let name = link.name.ok_or_else(|| Error::system(Errno::EINVAL, failed()))?;
    openvswitch::put_back(&name, ovs, lost)
}

/// Open vSwitch's kernel datapath lets go of a port only when its database says so.
fn leave_ovs(netlink: &mut Netlink, link: &Link) -> Result<()> {
    let Some(master) = link.master else { return Ok(()) };
    let failed = || format!("Unable to read the bridge port of {}", name_of(link));
    let master = link::get(netlink, By::Index(master)).context(failed)?;
    match &link.name {
        Some(name) if master.is_some_and(|master| kind_of(&master) == OPENVSWITCH) => openvswitch::delete(name),
        _ => Ok(()),
    }
}

fn existing(netlink: &mut Netlink, ifindex: i32) -> Result<Link> {
    let failed = || format!("Unable to find interface {ifindex}");
    link::get(netlink, By::Index(ifindex)).context(failed)?.ok_or_else(|| Error::system(Errno::ENODEV, failed()))
}

fn find_master(netlink: &mut Netlink, master: &Master, link: &Link) -> Result<i32> {
    let failed = || format!("Unable to put {} back on {}", name_of(link), master.name);
    let name = IfName::new(master.name.as_bytes()).map_err(|_| Error::argument(failed()))?;
    for by in [By::Index(master.ifindex), By::Name(&name)] {
        let found = link::get(netlink, by).context(failed)?.filter(|found| kind_of(found) == master.kind);
        if let Some(found) = found {
            return Ok(found.ifindex);
        }
    }
    Err(Error::system(Errno::ENODEV, failed()))
}

/// Puts an interface under a master, or under none.
pub(super) fn set_master(netlink: &mut Netlink, ifindex: i32, master: Option<i32>) -> std::result::Result<(), Refusal> {
    let master = master.unwrap_or_default();
    link::set(netlink, ifindex, 0, 0, |request| {
        request.attr(IFLA_MASTER, &master.to_ne_bytes());
    })
}

/// Makes these the VLANs of the port, and no others: first out of the wrong ones, then into the right ones.
/// On failure says what it was doing, in libvirt's words.
pub(super) fn set_vlans(
    netlink: &mut Netlink,
    ifindex: i32,
    wanted: &[Vlan],
) -> std::result::Result<(), (&'static str, Refusal)> {
    let now = vlans(netlink, ifindex).map_err(|errno| ("reading vlan filter of", errno.into()))?;
    let wrong: Vec<_> = now.iter().filter(|now| !wanted.iter().any(|wanted| wanted.vid == now.vid)).copied().collect();
    let missing: Vec<_> = wanted.iter().filter(|wanted| !now.contains(wanted)).copied().collect();
    if !wrong.is_empty() {
        bridge::delete_vlans(netlink, ifindex, &wrong).map_err(|refusal| ("removing vlan filter from", refusal))?;
    }
    if !missing.is_empty() {
        bridge::set_port(netlink, ifindex, &[], &missing).map_err(|refusal| ("adding vlan filter to", refusal))?;
    }
    Ok(())
}

/// What has changed from one reading of a port to a later one, for people: nothing if all is as it was.
pub(crate) fn changes(before: Option<&Port>, now: Option<&Port>) -> Vec<String> {
    let master = |port: Option<&Port>| port.map_or("none".to_owned(), |port| port.bridge().to_owned());
    let (Some(before), Some(now)) = (before, now) else {
        return if before == now { Vec::new() } else { vec![format!("master {} became {}", master(before), master(now))] };
    };
    let mut changes = Vec::new();
    if before.master != now.master {
        changes.push(format!("master {} became {}", before.bridge(), now.bridge()));
    }
    if before.ovs != now.ovs {
        changes.push("Open vSwitch's records of the port".to_owned());
    }
    let show = |value: Option<&u32>| value.map_or("none".to_owned(), u32::to_string);
    for (name, value) in &before.options.0 {
        let value_now = now.options.get(name);
        if value_now != Some(value) {
            changes.push(format!("port option {name} {value} became {}", show(value_now)));
        }
    }
    if before.vlans != now.vlans {
        changes.push("VLANs of the port".to_owned());
    }
    if before.fdb != now.fdb {
        changes.push("fixed forwarding entries of the port".to_owned());
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Json;
    use nix::sched::{CloneFlags, unshare};

    fn sh(script: &str) {
        let status = std::process::Command::new("sh").args(["-ec", script]).status().expect("sh");
        assert!(status.success(), "{script}");
    }

    fn in_namespace(test: impl FnOnce(&mut Netlink) + Send + 'static) {
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN");
            test(&mut Netlink::open().unwrap());
        };
        std::thread::spawn(run).join().unwrap();
    }

    fn tap0(netlink: &mut Netlink) -> (i32, Option<Port>) {
        let link = link::get(netlink, By::Name(&IfName::new(b"tap0").unwrap())).unwrap().unwrap();
        let port = read(netlink, &link).unwrap();
        (link.ifindex, port)
    }

    #[test]
    fn a_port_comes_back() {
        in_namespace(|netlink| {
            sh("ip link add br0 type bridge; ip link add br1 type bridge
                ip tuntap add tap0 mode tap; ip tuntap add tap1 mode tap
                ip link set tap1 master br0; ip link set tap0 master br0 up
                bridge link set dev tap0 cost 77 priority 7 hairpin on guard on learning off flood off isolated on
                bridge link set dev tap0 mcast_flood off neigh_suppress on root_block on backup_port tap1
                bridge fdb add 52:54:00:00:00:01 dev tap0 master static
                bridge fdb add 52:54:00:00:00:02 dev tap0 master static sticky");
            let (ifindex, before) = tap0(netlink);
            let port = before.clone().expect("in a bridge");
            assert_eq!(["cost", "isolated", "learning"].map(|name| port.options.get(name)), [Some(&77), Some(&1), Some(&0)]);
            // and each once more for the default VLAN, where there is VLAN filtering
            assert_eq!(port.fdb.iter().filter(|entry| entry.vid == 0).count(), 2, "{port:?}");
            assert_eq!(Port::from_json(&port.to_json()), Ok(port.clone()));

            sh("bridge link set dev tap0 cost 5 hairpin off isolated off nobackup_port
                bridge fdb del 52:54:00:00:00:01 dev tap0 master
                bridge fdb add 52:54:00:00:00:03 dev tap0 master static");
            let (_, after) = tap0(netlink);
            let what = changes(before.as_ref(), after.as_ref()).join(", ");
            assert!(what.contains("isolated 1 became 0") && what.contains("forwarding entries"), "{what}");
            apply(netlink, ifindex, before.as_ref()).unwrap();
            assert_eq!(tap0(netlink).1, before);
            if !port.vlans.is_empty() {
                sh("bridge fdb del 52:54:00:00:00:01 dev tap0 master vlan 1
                    bridge fdb add 52:54:00:00:00:04 dev tap0 master static vlan 1");
                apply(netlink, ifindex, before.as_ref()).unwrap();
                assert_eq!(tap0(netlink).1, before);
            }

            for elsewhere in ["nomaster", "master br1"] {
                sh(&format!("ip link set tap0 {elsewhere}"));
                assert!(!changes(before.as_ref(), tap0(netlink).1.as_ref()).is_empty());
                apply(netlink, ifindex, before.as_ref()).unwrap();
                assert_eq!(tap0(netlink).1, before);
            }
            apply(netlink, ifindex, None).unwrap();
            assert_eq!(tap0(netlink).1, None);
        });
    }

    #[test]
    fn a_bridge_that_was_renamed_or_made_again() {
        in_namespace(|netlink| {
            sh("ip link add br0 type bridge; ip tuntap add tap0 mode tap; ip link set tap0 master br0");
            let (ifindex, before) = tap0(netlink);
            sh("ip link set br0 name br7; ip link set tap0 nomaster");
            apply(netlink, ifindex, before.as_ref()).unwrap();
            assert_eq!(tap0(netlink).1.unwrap().master.name, "br7");
            sh("ip link del br7; ip link add br0 type bridge");
            apply(netlink, ifindex, before.as_ref()).unwrap();
            assert_eq!(tap0(netlink).1.unwrap().master.name, "br0");
            sh("ip link del br0");
            let error = apply(netlink, ifindex, before.as_ref()).unwrap_err();
            assert_eq!(error.errno(), Errno::ENODEV);
            assert!(error.to_string().contains("put tap0 back on br0"), "{error}");
        });
    }

    #[test]
    fn vlans_come_back() {
        in_namespace(|netlink| {
            sh("ip link add br0 type bridge; ip tuntap add tap0 mode tap; ip link set tap0 master br0");
            let (ifindex, before) = tap0(netlink);
            if before.is_some_and(|port| port.vlans.is_empty()) {
                return eprintln!("SKIP: this kernel has no bridge VLAN filtering");
            }
            sh(
                "bridge vlan del dev tap0 vid 1; bridge vlan add dev tap0 vid 5 pvid untagged; bridge vlan add dev tap0 vid 10-20",
            );
            let (_, before) = tap0(netlink);
            sh("bridge vlan del dev tap0 vid 12; bridge vlan add dev tap0 vid 30 pvid; bridge vlan add dev tap0 vid 11 untagged");
            assert_eq!(changes(before.as_ref(), tap0(netlink).1.as_ref()), ["VLANs of the port"]);
            apply(netlink, ifindex, before.as_ref()).unwrap();
            assert_eq!(tap0(netlink).1, before);
            sh("ip link set tap0 nomaster");
            apply(netlink, ifindex, before.as_ref()).unwrap();
            assert_eq!(tap0(netlink).1, before);
        });
    }
}
