//! One interface on its way into a bridge: where it was, where it goes, and the way back.

use super::device::{self, Change};
use super::port::{self, BRIDGE, OPENVSWITCH, Port};
use super::{PortConfig, Switch, midonet, openvswitch};
use crate::error::{Context, Error, Result};
use crate::host::warning;
use crate::kernel::IfName;
use crate::kernel::bridge::{self, ISOLATED, Vlan};
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use nix::errno::Errno;

/// A checked [`PortConfig`].
#[derive(Debug)]
pub(super) struct Target<'a> {
    config: &'a PortConfig,
    /// The bridge's device; Open vSwitch and midonet can do without it if the MTU is given.
    bridge: Option<Link>,
    pub mtu: u32,
    /// The port is to be in these and no others; None: where the bridge puts it.
    vlans: Option<Vec<Vlan>>,
}

impl<'a> Target<'a> {
    pub(super) fn find(netlink: &mut Netlink, config: &'a PortConfig, tap: impl std::fmt::Display) -> Result<Self> {
        let name = &config.bridge;
        let failed = || match config.mtu {
            Some(_) => format!("Unable to add bridge {name} port {tap}"),
            None => format!("Cannot get interface MTU on '{name}'"),
        };
        let mut target = Self { config, bridge: None, mtu: 0, vlans: None };
        let is_linux = matches!(config.switch, Switch::Linux { .. });
        if let Switch::Linux { vlan: Some(vlan), .. } = &config.switch {
            target.vlans = Some(vlan.for_linux()?);
        }
        if config.mtu.is_none() || is_linux {
            let bridge = link::get(netlink, By::Name(name)).context(failed)?;
            let bridge = bridge.ok_or_else(|| Error::system(Errno::ENODEV, failed()))?;
            if is_linux && bridge.kind.as_deref() != Some(BRIDGE) {
                let text = format!("Unable to add bridge {name} port {tap}, {name} is a {} device", bridge.describe());
                return Err(Error::system(Errno::EOPNOTSUPP, text));
            }
            target.bridge = Some(bridge);
        }
        target.mtu = config.mtu.or(target.bridge.as_ref().map(|bridge| bridge.mtu)).unwrap_or_default();
        Ok(target)
    }

    /// The index of the Linux bridge.
    pub(super) fn master(&self) -> Option<i32> {
        match self.config.switch {
            Switch::Linux { .. } => self.bridge.as_ref().map(|bridge| bridge.ifindex),
            _ => None,
        }
    }
}

/// What a new tap gets on its way into the bridge.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extra {
    pub mac: Option<[u8; 6]>,
    pub up: Option<bool>,
}

/// The interface, with all that is needed to put it back.
#[derive(Debug)]
pub(super) struct Plug<'a> {
    pub netlink: Netlink,
    pub tap: Link,
    name: IfName,
    target: &'a Target<'a>,
    pub before: Option<Port>,
    /// The bridge that is left, which may want its address and MTU back should the interface return.
    old_bridge: Option<Link>,
    /// It may be a port of another bridge, which it then leaves.
    pub moves: bool,
    /// Open vSwitch or midonet has been asked for the port.
    asked: bool,
}

impl<'a> Plug<'a> {
    /// Remembers how things are.
    pub(super) fn start(mut netlink: Netlink, tap: Link, target: &'a Target<'a>) -> Result<Self> {
        let failed = || format!("Unable to add bridge {} port {}", target.config.bridge, tap.ifindex);
        let name = tap.name.ok_or_else(|| Error::system(Errno::EINVAL, failed()))?;
        let mut before = None;
        let mut old_bridge = None;
        if let Some(master) = tap.master {
            before = port::read(&mut netlink, &tap)?;
            old_bridge = link::get(&mut netlink, By::Index(master)).context(failed)?;
        } else if matches!(target.config.switch, Switch::OpenVswitch(_)) {
            before = openvswitch::read(&name)?.map(Port::openvswitch);
        }
        Ok(Self { netlink, tap, name, target, before, old_bridge, moves: false, asked: false })
    }

    /// Refuses an interface that is a port of something already, which netlink would move without a word.
    pub(super) fn require_free(&self) -> Result<()> {
        let Some(port) = &self.before else { return Ok(()) };
        if port.master.kind == OPENVSWITCH && matches!(self.target.config.switch, Switch::OpenVswitch(_)) {
            return Ok(()); // ovs-vsctl looks at it itself, and may find it well
        }
        let (bridge, name) = (&self.target.config.bridge, &self.name);
        let text = format!("Unable to add bridge {bridge} port {name}, it is a port of {} already", port.bridge());
        Err(Error::system(Errno::EBUSY, text))
    }

    /// Is it on the bridge that it is to be on?
    pub(super) fn is_there(&self) -> bool {
        match self.target.config.switch {
            Switch::Linux { .. } => self.tap.master == self.target.master(),
            Switch::OpenVswitch(_) => {
                let ovs = self.before.as_ref().and_then(|port| port.ovs.as_ref());
                ovs.is_some_and(|ovs| ovs.bridge == self.target.config.bridge.as_str())
            }
            Switch::Midonet(_) => false,
        }
    }

    fn was_ovs(&self) -> bool {
        self.before.as_ref().is_some_and(|port| port.ovs.is_some())
    }

    /// Leaves the old bridge, if it and the new one are not of a kind: else leaving and joining are one step.
    pub(super) fn leave(&mut self) -> Result<()> {
        match self.target.config.switch {
            Switch::OpenVswitch(_) if self.was_ovs() => Ok(()),
            _ if self.was_ovs() => openvswitch::delete(&self.name),
            Switch::Linux { .. } => Ok(()),
            _ if self.tap.master.is_none() => Ok(()),
            _ => port::set_master(&mut self.netlink, self.tap.ifindex, None).map_err(|refusal| {
                let bridge = self.before.as_ref().map(Port::bridge).unwrap_or_default();
                Error::system(refusal.errno, format!("Unable to remove bridge {bridge} port {}{refusal}", self.name))
            }),
        }
    }

    /// Goes into the bridge.
    pub(super) fn join(&mut self, extra: Extra) -> Result<()> {
        let bridge = &self.target.config.bridge;
        let mut change = Change { mac: extra.mac, mtu: Some(self.target.mtu), ..Change::default() };
        match &self.target.config.switch {
            Switch::Linux { isolated, .. } => {
                let stays = self.is_there();
                let plain = !isolated && self.target.vlans.is_none() && !stays;
                change.master = self.target.master().filter(|_| !stays);
                change.up = extra.up.filter(|_| plain);
                device::set(&mut self.netlink, &self.tap, &change, bridge)?;
                if plain {
                    return Ok(());
                }
                self.set_options(*isolated, stays)?; // before it is up: no frame gets where it shall not
            }
            Switch::OpenVswitch(config) => {
                device::set(&mut self.netlink, &self.tap, &change, bridge)?;
                self.asked = true;
                openvswitch::add(bridge, &self.name, config, self.moves)?;
            }
            Switch::Midonet(port) => {
                device::set(&mut self.netlink, &self.tap, &change, bridge)?;
                self.asked = true;
                midonet::bind(&self.name, port)?;
            }
        }
        device::set(&mut self.netlink, &self.tap, &Change { up: extra.up, ..Change::default() }, bridge)
    }

    /// Isolation and VLANs of a port of a Linux bridge: of a new one where they differ from the bridge's defaults, of
    /// one that stays in any case.
    fn set_options(&mut self, isolated: bool, stays: bool) -> Result<()> {
        let Self { netlink, tap, name, target, .. } = self;
        if isolated || stays {
            let value = u32::from(isolated);
            bridge::set_port(netlink, tap.ifindex, &[(ISOLATED, value)], &[]).map_err(|refusal| {
                let bridge = &target.config.bridge;
                let text = format!("Unable to set bridge {bridge} port {name} isolated to {value}{refusal}");
                Error::system(refusal.errno, text)
            })?;
        }
        let default = || {
            let pvid = target.bridge.as_ref()?.default_pvid?;
            Some(if pvid == 0 { Vec::new() } else { vec![Vlan { vid: pvid, pvid: true, untagged: true }] })
        };
        let vlans = target.vlans.clone().or_else(|| default().filter(|_| stays));
        let Some(vlans) = vlans else { return Ok(()) };
        port::set_vlans(netlink, tap.ifindex, &vlans)
            .map_err(|(what, refusal)| Error::system(refusal.errno, format!("error {what} interface {name}{refusal}")))
    }

    /// Runs `work`; should that fail, everything is put back.
    pub(super) fn or_put_back(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = work(self);
        if result.is_err() {
            self.put_back();
        }
        result
    }

    fn put_back(&mut self) {
        if self.asked
            && !self.was_ovs()
            && let Err(e) = self.take_back()
        {
            warning!("{e}");
        }
        let is_linux = matches!(self.target.config.switch, Switch::Linux { .. });
        let with_master = !self.was_ovs() && (is_linux || self.tap.master.is_some());
        device::put_back(&mut self.netlink, &self.tap, with_master);
        if self.before.is_some()
            && let Err(e) = port::apply(&mut self.netlink, self.tap.ifindex, self.before.as_ref())
        {
            warning!("{e}");
        }
        for bridge in [self.target.bridge.as_ref().filter(|_| is_linux), self.old_bridge.as_ref()].into_iter().flatten() {
            device::mend_bridge(&mut self.netlink, bridge);
        }
    }

    /// Takes the port out of Open vSwitch or midonet again. A switch that is to release the tap to another bridge is
    /// waited for; otherwise not, for it may be what has failed.
    fn take_back(&self) -> Result<()> {
        match &self.target.config.switch {
            Switch::Linux { .. } => Ok(()),
            Switch::OpenVswitch(_) if self.before.is_some() => openvswitch::delete(&self.name),
            Switch::OpenVswitch(_) => openvswitch::forget(&self.name),
            Switch::Midonet(port) => midonet::unbind(port),
        }
    }
}
