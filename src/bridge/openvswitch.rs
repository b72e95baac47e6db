//! Open vSwitch, by way of `ovs-vsctl`: each change is one run, and so one transaction of its database.

use super::command;
use super::{mac_text, uuid};
use crate::bridge::vlan::VlanConfig;
use crate::error::{Error, Result};
use crate::json::{self, json_object};
use crate::kernel::IfName;
use nix::errno::Errno;
use std::time::Duration;

/// What ovs-vsctl is told to wait at most for its daemons, in seconds: libvirt's default.
const TIMEOUT: u32 = 5;
/// What is waited for ovs-vsctl itself.
const LIMIT: Duration = Duration::from_secs(8);

/// What a port of an Open vSwitch bridge shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvsConfig {
    pub interface_id: [u8; 16],
    pub profile_id: Option<String>,
    pub vm_id: Option<[u8; 16]>,
    pub mac: Option<[u8; 6]>,
    pub vlan: Option<VlanConfig>,
}

/// A port as the database has it. Values are as `ovs-vsctl get` writes and `ovs-vsctl set` reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OvsPort {
    pub bridge: String,
    port: Vec<(String, String)>,
    interface: Vec<(String, String)>,
}

json_object!(OvsPort { bridge, port, interface });

const PORT_COLUMNS: [&str; 5] = ["tag", "trunks", "vlan_mode", "other_config", "external_ids"];
const INTERFACE_COLUMNS: [&str; 5] =
    ["external_ids", "other_config", "mtu_request", "ingress_policing_rate", "ingress_policing_burst"];

/// A command line for ovs-vsctl: commands with "--" in front of each.
#[derive(Debug)]
struct Vsctl(Vec<String>);

impl Vsctl {
    fn new() -> Self {
        Self(vec![format!("--timeout={TIMEOUT}")])
    }

    fn command(mut self, words: &[&str]) -> Self {
        self.0.push("--".to_owned());
        self.words(words)
    }

    fn words(mut self, words: &[&str]) -> Self {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    fn delete(self, tap: &IfName) -> Self {
        self.command(&["--if-exists", "del-port", tap.as_str()])
    }

    /// One transaction; what it has changed has arrived at the switch when this returns.
    fn run(&self) -> std::result::Result<String, (Errno, String)> {
        let finished = command::run("ovs-vsctl", &self.0, LIMIT)?;
        // the database took it but the switch could not do it; ovs-vsctl exits with 0 all the same
        if finished.stderr.lines().any(|line| says(line, "Error detected while setting up")) {
            return Err((Errno::EIO, command::last_words("ovs-vsctl", &finished)));
        }
        Ok(finished.stdout)
    }
}

fn says(line: &str, what: &str) -> bool {
    line.strip_prefix("ovs-vsctl: ").unwrap_or(line).starts_with(what)
}

/// Adds the tap to the bridge. With `move_port` it is first taken from wherever it is, in the same transaction. The
/// change may be in the database although this fails.
pub(super) fn add(bridge: &IfName, tap: &IfName, config: &OvsConfig, move_port: bool) -> Result<()> {
    let vsctl = add_command(bridge, tap, config, move_port);
    vsctl
        .run()
        .map(drop)
        .map_err(|(errno, why)| Error::internal(errno, format!("Unable to add port {tap} to OVS bridge {bridge}: {why}")))
}

fn add_command(bridge: &IfName, tap: &IfName, config: &OvsConfig, move_port: bool) -> Vsctl {
    let mut vsctl = Vsctl::new();
    if move_port {
        vsctl = vsctl.delete(tap);
    }
    let (bridge, tap) = (bridge.as_str(), tap.as_str());
    vsctl = vsctl.command(&["--may-exist", "add-port", bridge, tap]);
    vsctl = vsctl.command(&["set", "Port", tap, "other_config:transient=true"]);
    for column in config.vlan.iter().flat_map(VlanConfig::for_openvswitch) {
        vsctl = vsctl.words(&[&column]);
    }
    let mut set = |key: &str, value: &str| {
        let assignment = format!("external-ids:{key}={value}");
        let before = std::mem::replace(&mut vsctl, Vsctl(Vec::new()));
        vsctl = before.command(&["set", "Interface", tap, &assignment]);
    };
    if let Some(mac) = &config.mac {
        set("attached-mac", &quoted(&mac_text(mac)));
    }
    set("iface-id", &quoted(&uuid(&config.interface_id)));
    if let Some(vm_id) = &config.vm_id {
        set("vm-id", &quoted(&uuid(vm_id)));
    }
    if let Some(profile) = &config.profile_id {
        set("port-profile", &quoted(profile));
        set("ifname", &quoted(tap));
    }
    set("iface-status", "active");
    vsctl
}

/// A string as the database's own syntax has it, which is JSON's.
fn quoted(text: &str) -> String {
    json::quoted(text)
}

/// Deletes the port. Does not wait for the switch, which may be what has failed.
pub(super) fn forget(tap: &IfName) -> Result<()> {
    let mut vsctl = Vsctl::new().delete(tap);
    vsctl.0.insert(0, "--no-wait".to_owned());
    vsctl.run().map(drop).map_err(|(errno, why)| Error::internal(errno, format!("Unable to delete port {tap} from OVS: {why}")))
}

/// Deletes the port, and waits until the switch has let go of the tap.
pub(super) fn delete(tap: &IfName) -> Result<()> {
    let deleted = Vsctl::new().delete(tap).run();
    deleted.map(drop).map_err(|(errno, why)| Error::internal(errno, format!("Unable to delete port {tap} from OVS: {why}")))
}

/// Reads the port that this tap is. None: it is on no bridge.
pub(super) fn read(tap: &IfName) -> Result<Option<OvsPort>> {
    let name = tap.as_str();
    let vsctl = Vsctl::new()
        .command(&["iface-to-br", name])
        .command(&["--if-exists", "get", "Port", name])
        .words(&PORT_COLUMNS)
        .command(&["--if-exists", "get", "Interface", name])
        .words(&INTERFACE_COLUMNS);
    match vsctl.run() {
        Ok(output) => Ok(parse(&output)),
        Err((_, why)) if says(&why, "no interface named") => Ok(None),
        Err((errno, why)) => Err(Error::internal(errno, format!("Unable to find the OVS bridge of {tap}: {why}"))),
    }
}

/// Lines in the order of what was asked for: the bridge, then a line for each column. A port that is a bond has
/// another name than its interface; of that only the bridge is kept.
fn parse(output: &str) -> Option<OvsPort> {
    let mut lines = output.lines();
    let bridge = lines.next()?.to_owned();
    let values: Vec<_> = lines.map(str::to_owned).collect();
    let columns = PORT_COLUMNS.iter().chain(&INTERFACE_COLUMNS);
    let complete = values.len() == columns.clone().count();
    let mut pairs: Vec<_> = columns.map(|column| (*column).to_owned()).zip(values).collect();
    if !complete {
        pairs.clear();
    }
    let interface = pairs.split_off(PORT_COLUMNS.len().min(pairs.len()));
    Some(OvsPort { bridge, port: pairs, interface })
}

/// Makes the tap the port that it was. `anew`: even if the database says that it is, since the switch has lost it.
pub(super) fn put_back(tap: &IfName, port: &OvsPort, anew: bool) -> Result<()> {
    let failed = |(errno, why)| Error::internal(errno, format!("Unable to put {tap} back on OVS bridge {}: {why}", port.bridge));
    let name = tap.as_str();
    let now = read(tap)?;
    if now.as_ref() == Some(port) && !anew {
        return Ok(());
    }
    let mut vsctl = Vsctl::new();
    if anew || now.is_none_or(|now| now.bridge != port.bridge) {
        vsctl = vsctl.delete(tap).command(&["add-port", &port.bridge, name]);
    }
    for (table, columns) in [("Port", &port.port), ("Interface", &port.interface)] {
        if !columns.is_empty() {
            let assignments: Vec<_> = columns.iter().map(|(column, value)| format!("{column}={value}")).collect();
            let words: Vec<_> = assignments.iter().map(String::as_str).collect();
            vsctl = vsctl.command(&["set", table, name]).words(&words);
        }
    }
    vsctl.run().map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that libvirt 10.3 and later uses, in its order.
    #[test]
    fn libvirts_arguments() {
        let name = |name: &str| IfName::new(name.as_bytes()).unwrap();
        let config = OvsConfig {
            interface_id: [0x11; 16],
            profile_id: Some("a \"profile\"".to_owned()),
            vm_id: Some([0xab; 16]),
            mac: Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
            vlan: Some(VlanConfig {
                trunk: true,
                tags: vec![5, 6],
                native_mode: super::super::NativeMode::Untagged,
                native_tag: 5,
            }),
        };
        let words = add_command(&name("br0"), &name("vnet0"), &config, false).0;
        let expected = "--timeout=5|--|--may-exist|add-port|br0|vnet0\
            |--|set|Port|vnet0|other_config:transient=true|vlan_mode=native-untagged|tag=5|trunk=5,6\
            |--|set|Interface|vnet0|external-ids:attached-mac=\"52:54:00:12:34:56\"\
            |--|set|Interface|vnet0|external-ids:iface-id=\"11111111-1111-1111-1111-111111111111\"\
            |--|set|Interface|vnet0|external-ids:vm-id=\"abababab-abab-abab-abab-abababababab\"\
            |--|set|Interface|vnet0|external-ids:port-profile=\"a \\\"profile\\\"\"\
            |--|set|Interface|vnet0|external-ids:ifname=\"vnet0\"\
            |--|set|Interface|vnet0|external-ids:iface-status=active";
        assert_eq!(words.join("|"), expected);
        let words = add_command(&name("br0"), &name("vnet0"), &config, true).0;
        assert!(words.join("|").starts_with("--timeout=5|--|--if-exists|del-port|vnet0|--|--may-exist|add-port|"));
    }

    #[test]
    fn reading() {
        let values = ["ovsbr0", "7", "[]", "[]", "{transient=\"true\"}", "{}", "{a=\"1\"}", "{}", "[]", "0", "0"].join("\n");
        let port = parse(&values).unwrap();
        assert_eq!((port.bridge.as_str(), port.port.len(), port.interface.len()), ("ovsbr0", 5, 5));
        assert_eq!(port.interface[0], ("external_ids".to_owned(), "{a=\"1\"}".to_owned()));
        let bond = parse("ovsbr0\n{}\n{}\n").unwrap();
        assert!(bond.port.is_empty() && bond.interface.is_empty());
        assert_eq!(parse(""), None);
    }
}
