"""Domain XML: no disk and 32 MiB, because the tap matters and not the guest."""

from host import QEMU

ROOT_PORTS = '<controller type="pci" index="0" model="pcie-root"/>' + ''.join(
    f'<controller type="pci" index="{index}" model="pcie-root-port"/>' for index in (1, 2, 3, 4))


def _interface(kind, source, name, model, queues, backend, extra):
    target = name if isinstance(name, str) else f'<target dev="{name[0]}" managed="no"/>' if name else ''
    if isinstance(name, str):
        target = f'<target dev="{name}"/>'
    driver = ''.join([f' queues="{queues}"' if queues else ''])
    return (f'<interface type="{kind}">{source}{target}<model type="{model}"/>'
            + (f'<driver{driver}/>' if driver else '') + (f'<backend tap="{backend}"/>' if backend else '') + extra + '</interface>')


def ethernet(name=None, model='virtio', queues=None, backend=None, extra=''):
    """A tap that libvirt makes, and removes at the end."""
    return _interface('ethernet', '', name, model, queues, backend, extra)


def unmanaged(name, model='virtio', queues=None, backend=None, extra=''):
    """A tap or macvtap that somebody else made: managed='no'."""
    return _interface('ethernet', '', (name,), model, queues, backend, extra)


def bridge(source, name=None, model='virtio', queues=None, extra=''):
    return _interface('bridge', f'<source bridge="{source}"/>', name, model, queues, None, extra)


def network(source, name=None, model='virtio', queues=None):
    return _interface('network', f'<source network="{source}"/>', name, model, queues, None, '')


def domain(name, interfaces, emulator=QEMU, does=None, hot=False, kvm=False, arguments=()):
    """does: what the emulator of the tests does to its taps. hot: on a machine that lets go of an interface with no guest."""
    commandline = [f'<qemu:arg value="{argument}"/>' for argument in arguments]
    if does:
        commandline += [f'<qemu:env name="EMULATOR_DOES" value="{does}"/>', '<qemu:env name="EMULATOR_PIDFILE" value="/run/emulator/accomplice"/>']
    if hot:
        # native PCIe hot-plug: powering the slot off unplugs at once, also while the domain is paused
        commandline += ['<qemu:arg value="-global"/>', '<qemu:arg value="ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"/>']
    return f'''\
<domain type="{'kvm' if kvm else 'qemu'}" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>{name}</name>
  <memory unit="MiB">32</memory>
  <vcpu>1</vcpu>
  <os><type arch="x86_64" machine="{'q35' if hot else 'pc'}">hvm</type></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type="usb" model="none"/>
    <memballoon model="none"/>
    {ROOT_PORTS if hot else ''}
    {' '.join(interfaces)}
  </devices>
  <qemu:commandline>{''.join(commandline)}</qemu:commandline>
</domain>
'''
