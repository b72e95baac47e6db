//! Open vSwitch of one's own: database, daemon, bridges. With the kernel's datapath where there is one, else with that in
//! user space.

use super::process::stand_in;
use super::skip;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Does this test have a database? One that it has not started is the machine's.
static STARTED: AtomicBool = AtomicBool::new(false);

pub struct Ovs {
    pub server: Daemon,
    pub switch: Daemon,
}

/// Ends when this is dropped, or when the test does.
pub struct Daemon(Child);

impl Daemon {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: a system call without pointers
        let die_with_us = || match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        // SAFETY: the closure makes one system call
        unsafe { command.pre_exec(die_with_us) };
        match command.spawn() {
            Ok(child) => Self(child),
            Err(e) => skip(&format!("{program}: {e} (package openvswitch-switch)")),
        }
    }

    /// `SIGSTOP`: it is there and does not answer.
    pub fn signal(&self, signal: i32) {
        // SAFETY: by value; the child has not been waited for
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_database() -> Daemon {
    let none = None::<&str>;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    std::fs::create_dir("/run/openvswitch").unwrap();
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    if !std::fs::exists(schema).unwrap() {
        skip("no Open vSwitch (package openvswitch-switch)");
    }
    let database = "/run/openvswitch/conf.db";
    assert!(Command::new("ovsdb-tool").args(["create", database, schema]).status().unwrap().success());
    let remote = "--remote=punix:/run/openvswitch/db.sock";
    let server = Daemon::start("/usr/sbin/ovsdb-server", &[database, remote, "--no-chdir", "--pidfile"]);
    vsctl(&["--retry", "--no-wait", "init"]);
    STARTED.store(true, Ordering::Relaxed);
    server
}

/// The real database and the real ovs-vsctl, which does not wait for a daemon, since there is none: what is looked at is
/// what the database has.
pub struct Database {
    _server: Daemon,
    vsctl: PathBuf,
}

impl Database {
    pub fn start() -> Self {
        let server = start_database();
        let path = std::env::var_os("PATH").unwrap();
        let vsctl = std::env::split_paths(&path).map(|dir| dir.join("ovs-vsctl")).find(|file| file.exists());
        Self { _server: server, vsctl: vsctl.unwrap() }
    }

    /// Two, ovsbr0 and ovsbr1, without ports.
    pub fn bridges_anew(&self) {
        stand_in("ovs-vsctl", &format!("exec {} --no-wait \"$@\"", self.vsctl.display()));
        let anew = ["ovsbr0", "ovsbr1"].map(|bridge| ["--", "--if-exists", "del-br", bridge, "--", "add-br", bridge]);
        vsctl(&anew.concat());
    }
}

impl Ovs {
    /// Starts it in this test's namespaces, with bridges of these names.
    pub fn start(bridges: &[&str]) -> Self {
        let server = start_database();
        super::net::ip("link set lo up");
        let switch = Daemon::start("/usr/sbin/ovs-vswitchd", &["--no-chdir", "--pidfile"]);
        let datapath = if in_kernel() { "datapath_type=system" } else { "datapath_type=netdev" };
        for bridge in bridges {
            vsctl(&["add-br", bridge, "--", "set", "bridge", bridge, datapath]);
        }
        Self { server, switch }
    }
}

/// Does the kernel have the datapath? Then a tap that is a port has the master `ovs-system`.
pub fn in_kernel() -> bool {
    let _ = Command::new("modprobe").args(["-q", "openvswitch"]).stdin(Stdio::null()).status();
    std::fs::exists("/sys/module/openvswitch").unwrap()
}

/// Runs ovs-vsctl, which has to succeed; its output without the last newline.
pub fn vsctl(args: &[&str]) -> String {
    let output = Command::new("ovs-vsctl").arg("--timeout=30").args(args).output().unwrap();
    assert!(output.status.success(), "ovs-vsctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The names of all ports that the database has for a bridge.
pub fn ports(bridge: &str) -> String {
    vsctl(&["list-ports", bridge])
}

/// What the database of this test, if it has one, says of the bridges of [`Database::bridges_anew`] and of their ports.
pub fn records() -> Value {
    if !STARTED.load(Ordering::Relaxed) {
        return Value::Null;
    }
    let ports = ["ovsbr0", "ovsbr1"].map(|bridge| ["get", "Bridge", bridge, "name", "--", "list-ports", bridge, "--"]);
    let tables = ["--columns=name,tag,trunks,vlan_mode,other_config,external_ids", "list", "Port", "--"];
    let more = ["--columns=name,external_ids,other_config,mtu_request", "list", "Interface"];
    let said = vsctl(&[&["--no-wait", "--format=csv", "--"][..], &ports.concat(), &tables, &more].concat());
    let mut lines: Vec<_> = said.lines().collect();
    let rows = lines.iter().position(|line| line.starts_with("name,")).unwrap();
    lines[rows..].sort_unstable(); // the tables' are in no order
    json!(lines)
}
