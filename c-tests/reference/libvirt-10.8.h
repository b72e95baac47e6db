/*
 * The eight functions as libvirt 10.8 and later call them. Included beside our
 * header, a parameter or result of another type is a compile error.
 *
 * Up to 10.7 virNetDevTapReattachBridge has no force; the rest is the same from 6.1 on.
 */

extern int virNetDevTapCreate(char **, const char *, int *, size_t, unsigned int);

extern int virNetDevTapDelete(const char *, const char *);

extern int virNetDevTapGetName(int, char **);

extern char *virNetDevTapGetRealDeviceName(char *);

extern int virNetDevTapInterfaceStats(const char *, virDomainInterfaceStatsPtr, bool);

extern int virNetDevTapAttachBridge(const char *tap, const char *bridge, const virMacAddr *mac,
                                    const unsigned char *uuid,
                                    const virNetDevVPortProfile *profile,
                                    const virNetDevVlan *vlan, virTristateBool isolated,
                                    unsigned int mtu, unsigned int *actual_mtu);

extern int virNetDevTapReattachBridge(const char *tap, const char *bridge, const virMacAddr *mac,
                                      const unsigned char *uuid,
                                      const virNetDevVPortProfile *profile,
                                      const virNetDevVlan *vlan, virTristateBool isolated,
                                      unsigned int mtu, unsigned int *actual_mtu, bool force);

extern int virNetDevTapCreateInBridgePort(const char *bridge, char **tap, const virMacAddr *mac,
                                          const unsigned char *uuid, const char *tunpath,
                                          int *fds, size_t fd_count,
                                          const virNetDevVPortProfile *profile,
                                          const virNetDevVlan *vlan, virTristateBool isolated,
                                          virNetDevCoalesce *coalesce, unsigned int mtu,
                                          unsigned int *actual_mtu, unsigned int flags);
