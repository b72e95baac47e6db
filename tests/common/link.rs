//! What rtnetlink tells of links, in JSON as `ip -d -j link` has it, without a process for each look. Tests look often, and
//! starting one is dear where the processor is emulated. Attributes that no test asks for have their numbers as names.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

const NAMES: [(u16, &str); 5] = [(6, "qdisc"), (13, "txqlen"), (27, "group"), (59, "tso_max_size"), (60, "tso_max_segs")];
/// The carrier and its counters, the statistics, where an Ethernet card is on an ISA bus.
const PASSING: [u16; 7] = [7, 14, 23, 33, 35, 47, 48];
const TUN_NAMES: [(u16, &str); 5] = [(1, "user"), (2, "group"), (4, "pi"), (5, "vnet_hdr"), (8, "numqueues")];
/// Queues that are detached: whoever looks at all open files, another test, has them a little longer than their owner.
const TUN_PASSING: [u16; 1] = [9];
const BRIDGE_NAMES: [(u16, &str); 2] = [(10, "root_id"), (11, "bridge_id")];
/// Spanning tree's clocks, the multicast querier, the number of learned addresses.
const BRIDGE_PASSING: [u16; 6] = [16, 17, 18, 19, 47, 48];
const PORT_NAMES: [(u16, &str); 9] = [
    (1, "state"),
    (13, "root_id"),
    (14, "bridge_id"),
    (15, "designated_port"),
    (16, "designated_cost"),
    (17, "id"),
    (18, "no"),
    (19, "topology_change_ack_flag"),
    (20, "config_pending_flag"),
];
const PORT_PASSING: [u16; 3] = [21, 22, 23];
const OPERSTATES: [&str; 7] = ["UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP"];
const FLAGS: [(u32, &str); 8] = [
    (libc::IFF_UP as u32, "UP"),
    (libc::IFF_BROADCAST as u32, "BROADCAST"),
    (libc::IFF_NOARP as u32, "NOARP"),
    (libc::IFF_PROMISC as u32, "PROMISC"),
    (libc::IFF_ALLMULTI as u32, "ALLMULTI"),
    (libc::IFF_MULTICAST as u32, "MULTICAST"),
    (LOWER_UP, "LOWER_UP"),
    (libc::IFF_LOOPBACK as u32, "LOOPBACK"),
];
const LOWER_UP: u32 = 1 << 16;

/// All links of this namespace.
pub fn links() -> Vec<Value> {
    messages(libc::RTM_GETLINK, &[0; 16]).iter().map(|message| decode(message)).collect()
}

/// The link of this name, which has to be there.
pub fn link(name: &str) -> Value {
    links().into_iter().find(|link| link["ifname"] == name).unwrap_or_else(|| panic!("there is no link {name}"))
}

/// The addresses that bridges have for a port, or for all ports, for good: index, address, VLAN, state and flags.
pub fn fdb(port: Option<&str>) -> Vec<String> {
    const SELF: u8 = 2; // the port's own list, not its bridge's
    const FOR_GOOD: u16 = 0x40 | 0x80; // static or permanent
    let port = port.map(|name| link(name)["ifindex"].as_u64().unwrap());
    let mut header = [0; 12];
    header[0] = libc::AF_BRIDGE as u8;
    let mut entries = Vec::new();
    for message in messages(libc::RTM_GETNEIGH, &header) {
        let (state, flags) = (u16::from_ne_bytes([message[8], message[9]]), message[10]);
        let index = number(&message[4..8]);
        if port.is_none_or(|port| port == index) && flags & SELF == 0 && state & FOR_GOOD != 0 {
            let wanted = attributes(&message[12..]).into_iter().filter(|(kind, _)| matches!(kind, 2 | 5));
            let wanted: Vec<_> = wanted.map(|(_, value)| hex(value)).collect();
            entries.push(format!("{index} {} state {state:#x} flags {flags:#x}", wanted.join(" VLAN ")));
        }
    }
    entries.sort();
    entries
}

/// The VLANs of all ports: number and flags.
pub fn vlans() -> BTreeMap<String, Vec<String>> {
    const BRVLAN: u8 = 2;
    const VLAN_INFO: u16 = 2;
    let mut header = [0; 24];
    header[0] = libc::AF_BRIDGE as u8;
    header[16..].copy_from_slice(&[8, 0, 29, 0, BRVLAN, 0, 0, 0]); // IFLA_EXT_MASK
    let of_port = |message: Vec<u8>| {
        let link = attributes(&message[16..]);
        let find = |wanted| link.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
        let vlans = attributes(find(libc::IFLA_AF_SPEC)?).into_iter().filter(|(kind, _)| *kind == VLAN_INFO);
        let vlans: Vec<_> = vlans.map(|(_, vlan)| format!("{} flags {:#x}", number(&vlan[2..4]), number(&vlan[..2]))).collect();
        (!vlans.is_empty()).then(|| (text(find(libc::IFLA_IFNAME).unwrap()), vlans))
    };
    messages(libc::RTM_GETLINK, &header).into_iter().filter_map(of_port).collect()
}

/// The messages of a dump behind their headers. One that was disturbed is asked for again.
fn messages(kind: u16, header: &[u8]) -> Vec<Vec<u8>> {
    const INTERRUPTED: u64 = 0x10;
    let protocol = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    let mut request = (16 + header.len() as u32).to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend(header);
    'again: loop {
        send(socket.as_raw_fd(), &request, MsgFlags::empty()).unwrap();
        let (mut all, mut disturbed) = (Vec::new(), false);
        loop {
            let mut buffer = vec![0; 1 << 16];
            let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            let mut rest = &buffer[..len];
            while rest.len() >= 16 {
                let len = number(&rest[..4]) as usize;
                disturbed |= number(&rest[6..8]) & INTERRUPTED != 0;
                match i32::from(u16::from_ne_bytes([rest[4], rest[5]])) {
                    libc::NLMSG_DONE if disturbed => continue 'again,
                    libc::NLMSG_DONE => return all,
                    libc::NLMSG_ERROR => panic!("the kernel refuses a dump: {}", number(&rest[16..20]) as i32),
                    _ => all.push(rest[16..len].to_vec()),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn attributes(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while rest.len() >= 4 {
        let len = number(&rest[..2]) as usize;
        all.push((u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff, &rest[4..len]));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn decode(message: &[u8]) -> Value {
    let flags = number(&message[8..12]) as u32;
    let mut seen = vec![json!({ "ifindex": number(&message[4..8]), "link_type": number(&message[2..4]) })];
    let mut names: Vec<_> = FLAGS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    if flags & libc::IFF_UP as u32 != 0 && flags & libc::IFF_RUNNING as u32 == 0 {
        names.push("NO-CARRIER");
    }
    seen.push(json!({ "flags": names }));
    for (kind, value) in attributes(&message[16..]) {
        seen.push(match kind {
            libc::IFLA_IFNAME => json!({ "ifname": text(value) }),
            libc::IFLA_IFALIAS => json!({ "ifalias": text(value) }),
            libc::IFLA_MTU => json!({ "mtu": number(value) }),
            libc::IFLA_ADDRESS => json!({ "address": hex(value) }),
            libc::IFLA_OPERSTATE => json!({ "operstate": OPERSTATES[value[0] as usize] }),
            libc::IFLA_MASTER => json!({ "master": name_of(number(value)) }),
            libc::IFLA_LINK => json!({ "link": name_of(number(value)) }),
            libc::IFLA_LINKINFO => json!({ "linkinfo": decode_info(value) }),
            libc::IFLA_AF_SPEC => json!({ "inet6_addr_gen_mode": addr_gen_mode(value) }),
            kind if PASSING.contains(&kind) => continue,
            kind => json!({ named(kind, &NAMES): hex(value) }),
        });
    }
    seen.into_iter().flat_map(|one| one.as_object().unwrap().clone()).collect::<Map<_, _>>().into()
}

fn decode_info(info: &[u8]) -> Value {
    let mut all = json!({});
    for (kind, value) in attributes(info) {
        match kind {
            1 => all["info_kind"] = json!(text(value)),
            2 if all["info_kind"] == "bridge" => all["info_data"] = decode_data(value, &BRIDGE_NAMES, &BRIDGE_PASSING),
            2 if all["info_kind"] == "tun" => all["info_data"] = decode_data(value, &TUN_NAMES, &TUN_PASSING),
            2 => all["info_data"] = decode_data(value, &[], &[]),
            4 => all["info_slave_kind"] = json!(text(value)),
            5 if all["info_slave_kind"] == "bridge" => {
                all["info_slave_data"] = decode_data(value, &PORT_NAMES, &PORT_PASSING);
            }
            _ => {}
        }
    }
    all
}

fn decode_data(data: &[u8], names: &[(u16, &str)], passing: &[u16]) -> Value {
    let all = attributes(data).into_iter().filter(|(kind, _)| !passing.contains(kind));
    all.map(|(kind, value)| (named(kind, names), json!(hex(value)))).collect::<Map<_, _>>().into()
}

/// IFLA_AF_SPEC, AF_INET6, IFLA_INET6_ADDR_GEN_MODE
fn addr_gen_mode(families: &[u8]) -> Option<u64> {
    let inet6 = attributes(families).into_iter().find(|(family, _)| i32::from(*family) == libc::AF_INET6)?.1;
    Some(number(attributes(inet6).into_iter().find(|(kind, _)| *kind == 8)?.1))
}

fn named(kind: u16, names: &[(u16, &str)]) -> String {
    names.iter().find(|(number, _)| *number == kind).map_or_else(|| kind.to_string(), |(_, name)| (*name).to_owned())
}

/// Of one, two or four bytes.
fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        _ => panic!("no number: {bytes:?}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn name_of(index: u64) -> String {
    nix::net::if_::if_indextoname(index as u32).map_or_else(|_| index.to_string(), |name| name.into_string().unwrap())
}
