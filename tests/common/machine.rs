//! All that a call could change: links, ports, VLANs, records, and what Open vSwitch's database or midonet's program has.

use super::link::{fdb, links, vlans};
use super::state::{DIR, differences, features, read_queue};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What stands for a port that a switch's program has been asked for.
pub const BOUND: &str = "/tmp/bound";

/// Deletes all interfaces, and what was recorded.
pub fn empty() {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let names = super::net::interfaces();
        if names.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "{names:?} do not go");
        for name in names {
            let _ = super::net::try_ip(&format!("link set {name} group 7")); // some may go by themselves at this moment
        }
        let _ = super::net::try_ip("link del group 7");
    }
    let _ = std::fs::remove_dir_all(Path::new(DIR).parent().unwrap());
    let _ = std::fs::remove_file(BOUND);
}

/// Everything in this network namespace and among the records.
pub fn machine() -> Value {
    look_until_told(true)
}

/// The same without what only a queue tells, for which each tap has to be opened.
pub fn machine_from_outside() -> Value {
    look_until_told(false)
}

fn look_until_told(queues: bool) -> Value {
    loop {
        if let Some(all) = look_at_machine(queues) {
            return all;
        }
    }
}

/// None: something has just gone.
fn look_at_machine(queues: bool) -> Option<Value> {
    let mut all = json!({});
    let mut bridges = false;
    for mut link in links() {
        let name = link["ifname"].as_str().unwrap().to_owned();
        bridges |= link["linkinfo"]["info_kind"] == "bridge";
        // what follows from the carrier comes up to a second later; a bridge keeps the limits of the ports that it had,
        // and a link that was up its queueing discipline
        link.as_object_mut()
            .unwrap()
            .retain(|key, _| !matches!(key.as_str(), "operstate" | "qdisc" | "tso_max_size" | "tso_max_segs"));
        if let Some(flags) = link["flags"].as_array_mut() {
            flags.retain(|flag| flag != "NO-CARRIER" && flag != "LOWER_UP");
        }
        if let Some(port) = link.pointer_mut("/linkinfo/info_slave_data").and_then(Value::as_object_mut) {
            port.retain(|key, _| key != "state" && !key.starts_with("designated_") && !key.ends_with("_flag"));
        }
        let sysfs = |file| super::net::sysfs(&name, file);
        let inode = std::fs::metadata(Path::new("/sys/class/net").join(&name)).ok()?.ino();
        let rest = json!({
            "tun": [sysfs("tun_flags"), sysfs("owner"), sysfs("group")], "inode": inode,
            "queue": queues.then(|| read_queue(&name)), "features": features(&name)?,
        });
        all[&name] = json!({ "link": link, "rest": rest });
    }
    if bridges {
        for (port, vlans) in vlans() {
            all[port]["VLANs"] = json!(vlans);
        }
        all["bridges"]["fdb"] = json!(fdb(None));
    }
    for entry in std::fs::read_dir(DIR).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        all["records"][entry.file_name().to_str().unwrap()] = json!(text);
    }
    all["bound"] = json!(Path::new(BOUND).exists());
    all["switch"] = super::ovs::records();
    Some(all)
}

/// Without what is different each time: indexes, inodes, addresses that the kernel made up.
pub fn without_identities(before: &Value, mut machine: Value) -> Value {
    // a number that was given out is not given out again
    let names: Vec<_> = machine.as_object().unwrap().keys().filter(|name| name.starts_with("vnet")).cloned().collect();
    for name in names {
        let mut device = machine.as_object_mut().unwrap().remove(&name).unwrap();
        device["link"]["ifname"] = Value::Null;
        machine["vnet%d"] = device;
    }
    for (name, device) in machine.as_object_mut().unwrap() {
        if let Some(rest) = device.get_mut("rest") {
            rest.as_object_mut().unwrap().remove("inode");
        }
        if let Some(link) = device.get_mut("link").and_then(Value::as_object_mut) {
            for key in ["ifindex", "inet6_addr_gen_mode"] {
                link.remove(key);
            }
            if before.get(name).is_none_or(|before| before["link"]["address"] == link["address"]) {
                link.remove("address");
            }
            if let Some(Value::Object(info)) = link.get_mut("linkinfo") {
                for data in ["info_data", "info_slave_data"] {
                    if let Some(Value::Object(data)) = info.get_mut(data) {
                        data.retain(|key, _| !matches!(key.as_str(), "root_id" | "bridge_id" | "no" | "id"));
                    }
                }
            }
        }
        if name == "records" {
            for text in device.as_object_mut().unwrap().values_mut() {
                *text = serde_json::from_str(text.as_str().unwrap()).unwrap();
                without_numbers(text);
            }
        }
    }
    if let Some(bridges) = machine.get_mut("bridges").and_then(Value::as_object_mut) {
        bridges.remove("fdb");
    }
    machine
}

/// Which device a record means is not the same each time; that it says so, is.
fn without_numbers(record: &mut Value) {
    for (key, value) in record.as_object_mut().unwrap() {
        match key.as_str() {
            "ifindex" | "lower_ifindex" | "inode" => *value = json!(value.is_number()),
            _ if value.is_object() => without_numbers(value),
            _ => {}
        }
    }
}

/// The differences between two looks at the machine, but for what a device that was made anew cannot have back.
pub fn not_as_before(before: &Value, now: &Value) -> Vec<String> {
    let mut before = before.clone();
    for (name, device) in before.as_object_mut().unwrap() {
        let Some(now) = now.get(name).filter(|now| now["rest"]["inode"] != device["rest"]["inode"]) else { continue };
        device["rest"]["inode"] = now["rest"]["inode"].clone();
        device["link"]["inet6_addr_gen_mode"] = now["link"]["inet6_addr_gen_mode"].clone();
    }
    let mut differences = differences("", &before, now);
    differences.retain(|line| !was_looked_at(line));
    differences
}

/// The tap was held for a moment more when it was looked at before, since somebody looked at the files of those who had.
pub fn was_looked_at(difference: &str) -> bool {
    difference.ends_with(r#"/numqueues: "01:00:00:00" -> "00:00:00:00""#) || difference.contains("/rest/queue: null -> [")
}
