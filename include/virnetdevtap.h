/*
 * virnetdevtap.h: tap devices with the interface of libvirt's virNetDevTap functions
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Made by cbindgen from the sources. To update it: VIRNETDEVTAP_BLESS=1 cargo test --test header
 *
 * A function that returns int returns -1 on failure, and then errno and the last error of the
 * thread are set (virNetDevTapGetLastErrorMessage). What a function hands out is from malloc(),
 * for the caller to free(). All functions may be called from any thread.
 */

#ifndef VIRNETDEVTAP_H
#define VIRNETDEVTAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__GNUC__) || defined(__clang__)
# define VIR_NETDEV_TAP_NONNULL(n) __attribute__((nonnull(n)))
# define VIR_NETDEV_TAP_RETURN_CHECK __attribute__((warn_unused_result))
#else
# define VIR_NETDEV_TAP_NONNULL(n)
# define VIR_NETDEV_TAP_RETURN_CHECK
#endif

/* Define VIR_NETDEV_TAP_LIBVIRT_TYPES to use this beside libvirt's own headers, which have these types. */
#ifndef VIR_NETDEV_TAP_LIBVIRT_TYPES

/**
 * What virNetDevTapCreate() and virNetDevTapCreateInBridgePort() shall do.
 */
typedef enum {
    VIR_NETDEV_TAP_CREATE_NONE = 0,
    /** Bring the interface up (only in a bridge port; else ignored) */
    VIR_NETDEV_TAP_CREATE_IFUP = (1 << 0),
    /** Enable IFF_VNET_HDR: a virtio_net_hdr before each frame */
    VIR_NETDEV_TAP_CREATE_VNET_HDR = (1 << 1),
    /** Use the MAC address as given, not the one derived from it (only in a bridge port; else ignored) */
    VIR_NETDEV_TAP_CREATE_USE_MAC_FOR_BRIDGE = (1 << 2),
    /** The device outlives the process: IFF_PERSIST */
    VIR_NETDEV_TAP_CREATE_PERSIST = (1 << 3),
    /** The device may exist already: then it is opened */
    VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING = (1 << 4),
} virNetDevTapCreateFlags;

/**
 * libvirt's three-valued bool.
 */
typedef enum {
    VIR_TRISTATE_BOOL_ABSENT = 0,
    VIR_TRISTATE_BOOL_YES = 1,
    VIR_TRISTATE_BOOL_NO = 2,
} virTristateBool;

/**
 * Counters of an interface, as in libvirt's public API. -1: not known.
 */
typedef struct {
    long long rx_bytes;
    long long rx_packets;
    long long rx_errs;
    long long rx_drop;
    long long tx_bytes;
    long long tx_packets;
    long long tx_errs;
    long long tx_drop;
} virDomainInterfaceStatsStruct;

typedef virDomainInterfaceStatsStruct *virDomainInterfaceStatsPtr;

/**
 * A MAC address.
 */
typedef struct {
    unsigned char addr[6];
} virMacAddr;

/**
 * Interrupt coalescing: struct ethtool_coalesce of the kernel without its first member.
 */
typedef struct {
    uint32_t rx_coalesce_usecs;
    uint32_t rx_max_coalesced_frames;
    uint32_t rx_coalesce_usecs_irq;
    uint32_t rx_max_coalesced_frames_irq;
    uint32_t tx_coalesce_usecs;
    uint32_t tx_max_coalesced_frames;
    uint32_t tx_coalesce_usecs_irq;
    uint32_t tx_max_coalesced_frames_irq;
    uint32_t stats_block_coalesce_usecs;
    uint32_t use_adaptive_rx_coalesce;
    uint32_t use_adaptive_tx_coalesce;
    uint32_t pkt_rate_low;
    uint32_t rx_coalesce_usecs_low;
    uint32_t rx_max_coalesced_frames_low;
    uint32_t tx_coalesce_usecs_low;
    uint32_t tx_max_coalesced_frames_low;
    uint32_t pkt_rate_high;
    uint32_t rx_coalesce_usecs_high;
    uint32_t rx_max_coalesced_frames_high;
    uint32_t tx_coalesce_usecs_high;
    uint32_t tx_max_coalesced_frames_high;
    uint32_t rate_sample_interval;
} virNetDevCoalesce;

/**
 * The <virtualport> of a libvirt interface. virtPortType: 0 none, 1 802.1Qbg, 2 802.1Qbh, 3 Open vSwitch, 4 midonet.
 */
typedef struct {
    int virtPortType;
    uint8_t managerID;
    bool managerID_specified;
    uint32_t typeID;
    bool typeID_specified;
    uint8_t typeIDVersion;
    bool typeIDVersion_specified;
    unsigned char instanceID[16];
    bool instanceID_specified;
    /** NUL-terminated */
    char profileID[40];
    unsigned char interfaceID[16];
    bool interfaceID_specified;
} virNetDevVPortProfile;

/**
 * The <vlan> of a libvirt interface. nativeMode: 0 default, 1 tagged, 2 untagged.
 */
typedef struct {
    bool trunk;
    /** Number of elements of tag */
    int nTags;
    unsigned int *tag;
    int nativeMode;
    unsigned int nativeTag;
} virNetDevVlan;

#endif /* VIR_NETDEV_TAP_LIBVIRT_TYPES */

/**
 * How important a log line is; libvirt's virLogPriority.
 */
typedef enum {
    VIR_NETDEV_TAP_LOG_DEBUG = 1,
    VIR_NETDEV_TAP_LOG_INFO = 2,
    VIR_NETDEV_TAP_LOG_WARN = 3,
    VIR_NETDEV_TAP_LOG_ERROR = 4,
} virNetDevTapLogPriority;

/**
 * How virNetDevTapStateRestore() shall deal with a device.
 */
typedef enum {
    VIR_NETDEV_TAP_RESTORE_NONE = 0,
    /** Delete a device that a process still holds under that process, and make it anew */
    VIR_NETDEV_TAP_RESTORE_EVICT = (1 << 0),
    /** Only let the guard and the record go */
    VIR_NETDEV_TAP_RESTORE_LEAVE = (1 << 1),
    /** Delete the device although it was there before */
    VIR_NETDEV_TAP_RESTORE_REMOVE = (1 << 2),
    /** Make the device anew if that is the only way to have it as it was: the kernel lets nobody set "no owner" */
    VIR_NETDEV_TAP_RESTORE_RECREATE = (1 << 3),
} virNetDevTapRestoreFlags;

/**
 * What virNetDevTapStateCheck() and virNetDevTapStateRestore() found changed.
 */
typedef enum {
    VIR_NETDEV_TAP_STATE_PERSIST = (1 << 0),
    VIR_NETDEV_TAP_STATE_OWNER = (1 << 1),
    VIR_NETDEV_TAP_STATE_GROUP = (1 << 2),
    /** VNET_HDR, NO_PI, NAPI */
    VIR_NETDEV_TAP_STATE_FLAGS = (1 << 3),
    VIR_NETDEV_TAP_STATE_VNET_HDR_SIZE = (1 << 4),
    VIR_NETDEV_TAP_STATE_VNET_ENDIAN = (1 << 5),
    VIR_NETDEV_TAP_STATE_OFFLOADS = (1 << 6),
    /** A socket filter; MAC filters and eBPF programs cannot be seen, and are taken away unseen */
    VIR_NETDEV_TAP_STATE_FILTERS = (1 << 7),
    VIR_NETDEV_TAP_STATE_CARRIER = (1 << 8),
    VIR_NETDEV_TAP_STATE_LINK_TYPE = (1 << 9),
    VIR_NETDEV_TAP_STATE_MAC = (1 << 10),
    VIR_NETDEV_TAP_STATE_MTU = (1 << 11),
    VIR_NETDEV_TAP_STATE_TXQLEN = (1 << 12),
    VIR_NETDEV_TAP_STATE_UP = (1 << 13),
    /** The bridge, and how the tap is a port of it */
    VIR_NETDEV_TAP_STATE_MASTER = (1 << 14),
    VIR_NETDEV_TAP_STATE_ALIAS = (1 << 15),
    VIR_NETDEV_TAP_STATE_NAME = (1 << 16),
    /** The device was gone, and had to be made anew */
    VIR_NETDEV_TAP_STATE_VANISHED = (1 << 17),
    /** Something could not be put back; the log says what */
    VIR_NETDEV_TAP_STATE_UNRESTORED = (1 << 18),
    /** The group of interfaces that it belongs to */
    VIR_NETDEV_TAP_STATE_LINK_GROUP = (1 << 19),
    VIR_NETDEV_TAP_STATE_ALTNAMES = (1 << 20),
} virNetDevTapStateField;

/**
 * Takes a log line. May be called from any thread; must not jump out with longjmp() or an exception.
 */
typedef void (*virNetDevTapLogFunc)(virNetDevTapLogPriority priority,
                                    const char *message,
                                    void *opaque);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Creates a tap device, or opens an existing one.
 *
 * @ifname: in: the name, a template with one "%d", or NULL for "vnet%d"; out: the name of the device. A name that
 *   changes is free()d and replaced by one from malloc(), so give one from malloc(), or NULL.
 * @tunpath: the clone device, NULL for /dev/net/tun
 * @tapfd: array that receives one file descriptor per queue, close-on-exec, the caller's to close
 * @tapfdSize: number of queues, 1 to 256; more than one make the device multi-queue
 * @flags: OR of virNetDevTapCreateFlags; unknown bits are refused
 *
 * With VIR_NETDEV_TAP_CREATE_PERSIST, @tapfd may be NULL or @tapfdSize 0: the device is made and nothing stays open.
 * An existing device (VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING) stays multi-queue or not, whatever @tapfdSize 1 would
 * have made of it; one that another process holds is waited for, up to one second.
 *
 * Returns 0, or -1: then all slots of @tapfd are -1 (if @tapfdSize is at most 256), *@ifname is as it was, and no
 * device is left behind or changed.
 */
int virNetDevTapCreate(char **ifname,
                       const char *tunpath,
                       int *tapfd,
                       size_t tapfdSize,
                       unsigned int flags)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Deletes a tap device: single- or multi-queue, persistent or not. Success if there is none.
 *
 * @ifname: the name
 * @tunpath: the clone device, NULL for /dev/net/tun
 *
 * A device of another kind is refused (EINVAL). One that a process holds is waited for, up to one second, and then
 * left as it is (EBUSY); the error names the holders. The owner of a tap needs no CAP_NET_ADMIN. Should the device be
 * renamed meanwhile, it is this one that is deleted, and not what has the name then.
 *
 * Returns 0, or -1.
 */
int virNetDevTapDelete(const char *ifname,
                       const char *tunpath)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Tells the name of the tap (or macvtap) that a file descriptor is attached to.
 *
 * @tapfd: the file descriptor
 * @ifname: receives the name, the caller's to free(). What it held before is not looked at.
 *
 * Returns 0, or -1 with *@ifname as it was.
 */
int virNetDevTapGetName(int tapfd,
                        char **ifname)
    VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * The name that the driver gives to the device on FreeBSD. On Linux there is none: returns NULL, which is no error.
 *
 * @ifname: the name
 */
char *virNetDevTapGetRealDeviceName(char *ifname)
    VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Reads the counters of the interface with exactly this name; their meaning is that of /proc/net/dev.
 *
 * @ifname: the name; need not be a tap
 * @stats: receives the counters
 * @swapped: exchange rx and tx: what the host's tap receives is what the guest sent
 *
 * Returns 0, or -1 with *@stats as it was.
 */
int virNetDevTapInterfaceStats(const char *ifname,
                               virDomainInterfaceStatsPtr stats,
                               bool swapped)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Puts an interface on a bridge: a Linux bridge, or what @virtPortProfile says.
 *
 * @tapname: the interface; a tap or any other that can be a bridge port. It must not be on a bridge.
 * @brname: the bridge
 * @macaddr: the guest's MAC address, which Open vSwitch is told; NULL to leave it out. The interface keeps its own.
 * @vmuuid: 16 bytes, which Open vSwitch is told; NULL to leave it out
 * @virtPortProfile: NULL for a Linux bridge. virtPortType 3: Open vSwitch, by ovs-vsctl. 4: midonet, by mm-ctl.
 *   Others are refused (code 67).
 * @virtVlan: the VLANs of the port, or NULL, or one without tags: then the bridge's default. On a Linux bridge the
 *   port is in these and no others; that separates anything only if the bridge has VLAN filtering on.
 * @isolatedPort: VIR_TRISTATE_BOOL_YES keeps the port from talking to other isolated ones (Linux bridge only)
 * @mtu: the MTU for the interface, set before it joins, since a bridge takes on the lowest of its ports; 0 for the
 *   bridge's
 * @actualMTU: receives the MTU that the interface has afterwards; may be NULL
 *
 * The programs are looked for in PATH; ovs-vsctl is given 8 seconds at most and mm-ctl 30.
 *
 * Returns 0, or -1: then *@actualMTU, the interface and the bridge are as they were.
 */
int virNetDevTapAttachBridge(const char *tapname,
                             const char *brname,
                             const virMacAddr *macaddr,
                             const unsigned char *vmuuid,
                             const virNetDevVPortProfile *virtPortProfile,
                             const virNetDevVlan *virtVlan,
                             virTristateBool isolatedPort,
                             unsigned int mtu,
                             unsigned int *actualMTU)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Moves an interface to a bridge from whatever bridge it is on, if any.
 *
 * @force: what to do if it is on this bridge already. false: nothing. true: give the port MTU, isolation and VLANs
 *   as the other arguments say, without leaving the bridge.
 *
 * The other arguments are those of virNetDevTapAttachBridge(). From one Linux bridge to another, and from one Open
 * vSwitch bridge to another, the interface moves in one step; it is never seen without a bridge.
 *
 * Returns 0, or -1: then the interface is on its old bridge again with all its port settings, and *@actualMTU is as it
 * was.
 */
int virNetDevTapReattachBridge(const char *tapname,
                               const char *brname,
                               const virMacAddr *macaddr,
                               const unsigned char *vmuuid,
                               const virNetDevVPortProfile *virtPortProfile,
                               const virNetDevVlan *virtVlan,
                               virTristateBool isolatedPort,
                               unsigned int mtu,
                               unsigned int *actualMTU,
                               bool force)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Creates a tap device, or opens an existing one, and puts it on a bridge.
 *
 * @brname: the bridge
 * @ifname, @tunpath, @tapfd, @tapfdSize: as for virNetDevTapCreate()
 * @macaddr: the guest's MAC address. The tap gets it with 0xFE as its first byte (0xFA if it has 0xFE already), so that
 *   it is never the lowest address of the bridge's ports, which the bridge takes for itself. NULL: derived in this
 *   way from the address that the kernel gave the tap.
 * @coalesce: interrupt coalescing to set, or NULL; receives what the kernel has then. A tap knows only
 *   rx_max_coalesced_frames: anything else that is not 0 is refused (EOPNOTSUPP).
 * @flags: OR of virNetDevTapCreateFlags. VIR_NETDEV_TAP_CREATE_IFUP sets the interface up, its absence sets it down;
 *   VIR_NETDEV_TAP_CREATE_USE_MAC_FOR_BRIDGE sets @macaddr unchanged; unknown bits are refused.
 *
 * The other arguments are those of virNetDevTapAttachBridge(). The interface goes up only when isolation and VLANs
 * are in place.
 *
 * Returns 0, or -1: then all slots of @tapfd are -1 (if @tapfdSize is at most 256), *@ifname, *@coalesce and
 * *@actualMTU are as they were, no device or port is left behind, and an existing tap and the bridge are as they were.
 */
int virNetDevTapCreateInBridgePort(const char *brname,
                                   char **ifname,
                                   const virMacAddr *macaddr,
                                   const unsigned char *vmuuid,
                                   const char *tunpath,
                                   int *tapfd,
                                   size_t tapfdSize,
                                   const virNetDevVPortProfile *virtPortProfile,
                                   const virNetDevVlan *virtVlan,
                                   virTristateBool isolatedPort,
                                   virNetDevCoalesce *coalesce,
                                   unsigned int mtu,
                                   unsigned int *actualMTU,
                                   unsigned int flags)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Is the tap persistent? Needs no permission.
 *
 * @ifname: the name
 * @persist: receives the answer
 *
 * Returns 0, or -1: ENODEV if there is no such device, EINVAL if it is not a tap.
 */
int virNetDevTapGetPersist(const char *ifname,
                           bool *persist)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Makes a tap persistent or not, and changes nothing else.
 *
 * @ifname: the name
 * @tunpath: the clone device, NULL for /dev/net/tun
 * @persist: the new value
 *
 * Needs a queue of the tap: a single-queue tap that a process holds is waited for, up to one second, then EBUSY. A tap
 * that nobody holds is gone at once when it stops being persistent.
 *
 * Returns 0, or -1.
 */
int virNetDevTapSetPersist(const char *ifname,
                           const char *tunpath,
                           bool persist)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Finds the processes that hold a tap open, in this network namespace and as far as the caller may see them.
 *
 * @ifname: the name
 * @pids: receives an array of process ids in rising order, the caller's to free(); NULL if there are none
 *
 * A file descriptor that is in flight in a socket, or held only by the kernel, belongs to no process and is not found.
 *
 * Returns the number of processes, or -1 with *@pids as it was.
 */
int virNetDevTapGetHolders(const char *ifname,
                           pid_t **pids)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Records what a tap or macvtap is like: call it before virNetDevTapCreate(), since the first who opens a tap changes its
 * flags.
 *
 * @ifname: the name; a device that does not exist is recorded as absent
 * @stateDir: directory for the records, made with mode 0700 if missing
 *
 * A record that is there already is of a run that never came to virNetDevTapStateRestore(): that is made up for first. If
 * a process still holds the device: EBUSY.
 *
 * Returns 0, or -1.
 */
int virNetDevTapStateSave(const char *ifname,
                          const char *stateDir)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Keeps the device alive, whatever the hypervisor does to it: call it after virNetDevTapCreate() and before the hypervisor
 * starts.
 *
 * @ifname: the name; NULL does nothing
 * @stateDir: directory for the records
 * @tapfd: the device's file descriptors; a close-on-exec duplicate of the first is kept until virNetDevTapStateRestore()
 * @tapfdSize: their number
 *
 * Without a record (a generated name), one is written that says that the device was absent before. A device that was
 * absent is not kept alive: it goes when the hypervisor exits, and virNetDevTapStateRestore() sees to it.
 *
 * Returns 0, or -1.
 */
int virNetDevTapStateHold(const char *ifname,
                          const char *stateDir,
                          const int *tapfd,
                          size_t tapfdSize)
    VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Wins back what virNetDevTapStateHold() had, after a restart of the manager: from the running hypervisor.
 *
 * @ifname: the name
 * @stateDir: directory for the records
 * @pid: the hypervisor; 0: whichever process has the device
 *
 * A single-queue tap takes the right to trace the hypervisor (CAP_SYS_PTRACE, or the same user) and Linux 5.6.
 *
 * Returns 0, or -1: ENOENT without a record, ESRCH if no such process has the device.
 */
int virNetDevTapStateReclaim(const char *ifname,
                             const char *stateDir,
                             pid_t pid)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Tells what virNetDevTapStateRestore() would find changed. Changes nothing.
 *
 * @ifname: the name; NULL does nothing
 * @stateDir: directory for the records
 * @changed: receives an OR of virNetDevTapStateField; may be NULL
 *
 * Returns 0, or -1. Without a record nothing is changed.
 */
int virNetDevTapStateCheck(const char *ifname,
                           const char *stateDir,
                           unsigned int *changed)
    VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Puts everything back: call it when the hypervisor is dead or has closed the tap, after a stop, a crash, a failed start, a
 * hot-unplug.
 *
 * @ifname: the name; NULL does nothing
 * @tunpath: the clone device, NULL for /dev/net/tun
 * @stateDir: directory for the records
 * @flags: OR of virNetDevTapRestoreFlags; unknown bits are refused
 * @changed: receives what was found changed, an OR of virNetDevTapStateField; may be NULL. Each change is logged as a
 *   warning, with the old and the new value.
 *
 * Absent before: the device goes. There before: persist flag, owner, group, flags, header size, endianness, offloads, MAC,
 * MTU, master and all the rest become what they were, filters are taken away. A device that has vanished is made anew with
 * the same name and index. The right device is found under another name; another device under the name is never touched
 * (EEXIST). If a process still holds it: EBUSY, the error names it, and the record stays for the next call. Without a record
 * there is nothing to do.
 *
 * Returns 0, or -1.
 */
int virNetDevTapStateRestore(const char *ifname,
                             const char *tunpath,
                             const char *stateDir,
                             unsigned int flags,
                             unsigned int *changed)
    VIR_NETDEV_TAP_NONNULL(3) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Restores many taps: what virNetDevTapStateRestore() does for each. Those that were absent before are deleted together, as
 * by virNetDevTapDeleteList().
 *
 * @ifnames: the names, in any order; one that is NULL does nothing
 * @n: their number
 * @tunpath: the clone device, NULL for /dev/net/tun
 * @stateDir: directory for the records
 * @flags: OR of virNetDevTapRestoreFlags, for all of them; unknown bits are refused
 * @changed: array of @n that receives, in the order of the names, what was found changed, an OR of virNetDevTapStateField,
 *   and 0 for a tap that is not restored; may be NULL
 * @errnos: array of @n that receives 0 for each tap that is restored, and else why it is not; may be NULL
 *
 * All are restored as far as they can be. Those that a process still holds are waited for, up to a second, all of them
 * together.
 *
 * Returns 0 if all are restored, or -1: the error is that of the first tap that is not. Where the arguments are refused, the
 * arrays stay as they are.
 */
int virNetDevTapStateRestoreList(const char *const *ifnames,
                                 size_t n,
                                 const char *tunpath,
                                 const char *stateDir,
                                 unsigned int flags,
                                 unsigned int *changed,
                                 int *errnos)
    VIR_NETDEV_TAP_NONNULL(4) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Forgets a tap: lets the duplicate go and removes the record, also one that cannot be read.
 *
 * @ifname: the name; NULL does nothing
 * @stateDir: directory for the records
 *
 * Returns 0, also if there was no record, or -1.
 */
int virNetDevTapStateDiscard(const char *ifname,
                             const char *stateDir)
    VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Lists the taps that have a record: what a manager has to deal with after a crash.
 *
 * @stateDir: directory for the records; a missing one has none
 * @ifnames: receives a NULL-terminated array of names, sorted; the caller's to free(), each name and the array
 *
 * Returns the number of names, or -1 with *@ifnames as it was.
 */
int virNetDevTapStateList(const char *stateDir,
                          char ***ifnames)
    VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Deletes many tap devices: what virNetDevTapDelete() does for each, in a fraction of the time.
 *
 * @ifnames: the names, in any order
 * @n: their number
 * @tunpath: the clone device, NULL for /dev/net/tun
 * @errnos: array of @n that receives, in the order of the names, 0 for each device that is gone, and else why it is not;
 *   may be NULL
 *
 * A device that is not there counts as deleted. One of another kind stays (EINVAL), as does one that a process still holds
 * one second later (EBUSY); all others are deleted nevertheless. At most 16 go at once, and fewer where that takes long: other
 * users of netlink shall not wait for more than 20 ms. While they go, these are in a link group of their own. As with
 * virNetDevTapDelete(), all are gone when the call returns, and the kernel's wait for RCU is left to threads that end.
 *
 * Returns 0 if all are gone, or -1: the error is that of the first device that is not.
 */
int virNetDevTapDeleteList(const char *const *ifnames,
                           size_t n,
                           const char *tunpath,
                           int *errnos)
    VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * Reads the counters of many interfaces: what virNetDevTapInterfaceStats() does for one, in a few system calls for all.
 *
 * @ifnames: the names, in any order, the same ones more than once if so desired; need not be taps
 * @n: their number
 * @stats: array of @n that receives the counters, in the order of the names. All eight are -1 where there is no
 *   interface of that name.
 * @swapped: exchange rx and tx: what the host's tap receives is what the guest sent
 *
 * Up to 32 names are asked for one by one, in the order of 10 microseconds each; more with a dump of all interfaces, in the
 * order of 2 microseconds each. An interface that appears meanwhile may be missing.
 *
 * Returns the number of interfaces found, or -1 with @stats as it was. A name that cannot be one (NULL, empty, too long)
 * is an error.
 */
int virNetDevTapInterfaceStatsList(const char *const *ifnames,
                                   size_t n,
                                   virDomainInterfaceStatsPtr stats,
                                   bool swapped)
    VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * The text of the last error that a function of this library returned in this thread, such as
 * "Unable to delete tap device vnet0, it is held by qemu-system-x86 (pid 4711): Device or resource busy"; "no error"
 * if there was none. A success does not reset it.
 *
 * The string is the library's, and valid until a function of the library fails again in this thread.
 */
const char *virNetDevTapGetLastErrorMessage(void)
    VIR_NETDEV_TAP_RETURN_CHECK;

/**
 * libvirt's number (virErrorNumber) for the last error in this thread: 1 internal error, 8 invalid argument,
 * 38 system call failed, 55 operation invalid, 67 configuration unsupported; 0 if there was none.
 */
int virNetDevTapGetLastErrorCode(void);

/**
 * The errno of the last error in this thread, 0 if there was none. errno itself has the same value when a function
 * returns -1.
 */
int virNetDevTapGetLastErrorErrno(void);

/**
 * Sends log lines to cb, for all threads; NULL ends that. Without a function, VIRNETDEVTAP_DEBUG=1 in the environment
 * sends them to standard error.
 *
 * A thread that is writing a line at this moment may still call the former function: keep its opaque alive.
 */
void virNetDevTapSetLogFunc(virNetDevTapLogFunc cb,
                            void *opaque);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VIRNETDEVTAP_H */
