//! The VLANs of a port as libvirt's `<vlan>` element states them, for a Linux bridge and for Open vSwitch.

use crate::error::{Error, Result};
use crate::kernel::bridge::Vlan;

/// Highest VLAN id that can be used (IEEE 802.1Q); 0 stands for "no VLAN".
const MAX_VID: u32 = 4094;

/// What becomes of frames on the native VLAN of a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NativeMode {
    Default,
    /// They leave with their tag.
    Tagged,
    /// They leave without.
    Untagged,
}

/// A `<vlan>` with at least one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanConfig {
    pub trunk: bool,
    pub tags: Vec<u32>,
    pub native_mode: NativeMode,
    /// 0: none
    pub native_tag: u32,
}

impl VlanConfig {
    /// All VLANs that the port of a Linux bridge shall be in, in rising order.
    pub(super) fn for_linux(&self) -> Result<Vec<Vlan>> {
        let mut vlans: Vec<Vlan> = Vec::new();
        let mut insert = |tag, pvid, untagged| -> Result<()> {
            let vid = vid(tag)?;
            if let Err(at) = vlans.binary_search_by_key(&vid, |vlan| vlan.vid) {
                vlans.insert(at, Vlan { vid, pvid, untagged });
            }
            Ok(())
        };
        if self.trunk {
            if self.native_tag != 0 {
                insert(self.native_tag, true, self.native_mode != NativeMode::Tagged)?;
            }
            self.tags.iter().try_for_each(|tag| insert(*tag, false, false))?;
        } else if let Some(tag) = self.tags.first() {
            insert(*tag, true, true)?;
        }
        Ok(vlans)
    }

    /// Columns of the table `Port`.
    pub(super) fn for_openvswitch(&self) -> Vec<String> {
        let mut columns = match self.native_mode {
            NativeMode::Default => Vec::new(),
            NativeMode::Tagged => vec!["vlan_mode=native-tagged".to_owned(), format!("tag={}", self.native_tag)],
            NativeMode::Untagged => vec!["vlan_mode=native-untagged".to_owned(), format!("tag={}", self.native_tag)],
        };
        if self.trunk {
            let tags: Vec<_> = self.tags.iter().map(u32::to_string).collect();
            columns.push(format!("trunk={}", tags.join(",")));
        } else if let Some(tag) = self.tags.first() {
            columns.push(format!("tag={tag}"));
        }
        columns
    }
}

fn vid(tag: u32) -> Result<u16> {
    let valid = u16::try_from(tag).ok().filter(|_| (1..=MAX_VID).contains(&tag));
    valid.ok_or_else(|| Error::argument(format!("vlanid out of range: {tag}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(trunk: bool, tags: &[u32], native_mode: NativeMode, native_tag: u32) -> VlanConfig {
        VlanConfig { trunk, tags: tags.to_vec(), native_mode, native_tag }
    }

    fn vlan(vid: u16, pvid: bool, untagged: bool) -> Vlan {
        Vlan { vid, pvid, untagged }
    }

    #[test]
    fn linux() {
        use NativeMode::*;
        assert_eq!(config(false, &[42], Default, 0).for_linux(), Ok(vec![vlan(42, true, true)]));
        let trunk = |mode, native| config(true, &[7, 5, 7, 9], mode, native).for_linux().unwrap();
        let tagged = |vid| vlan(vid, false, false);
        assert_eq!(trunk(Default, 0), [tagged(5), tagged(7), tagged(9)]);
        assert_eq!(trunk(Default, 7), [tagged(5), vlan(7, true, true), tagged(9)]);
        assert_eq!(trunk(Untagged, 3), [vlan(3, true, true), tagged(5), tagged(7), tagged(9)]);
        assert_eq!(trunk(Tagged, 5), [vlan(5, true, false), tagged(7), tagged(9)]);
        for bad in [0, 4095, 4096, 70000] {
            for trunk in [false, true] {
                let error = config(trunk, &[bad], Default, 0).for_linux().unwrap_err();
                assert_eq!(error.text(), format!("vlanid out of range: {bad}"));
            }
        }
    }

    #[test]
    fn openvswitch() {
        use NativeMode::*;
        assert_eq!(config(false, &[42], Default, 0).for_openvswitch(), ["tag=42"]);
        assert_eq!(config(true, &[1, 2], Default, 0).for_openvswitch(), ["trunk=1,2"]);
        assert_eq!(config(true, &[1, 2], Tagged, 2).for_openvswitch(), ["vlan_mode=native-tagged", "tag=2", "trunk=1,2"]);
        assert_eq!(config(true, &[1], Untagged, 1).for_openvswitch(), ["vlan_mode=native-untagged", "tag=1", "trunk=1"]);
    }
}
