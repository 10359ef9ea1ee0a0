"""Does with a NIC what Ganeti's daemons do, by Ganeti's own code, which PYTHONPATH names.

Arguments: what to do, the NIC as a JSON object of the variables that describe it, and for `call` a command.
"""

import json
import socket
import sys

from ganeti import backend, constants, errors, hooksmaster, objects, opcodes
from ganeti.cmdlib import instance_operation, instance_utils
from ganeti.hypervisor import hv_base, hv_kvm, hv_xen

doing, told, *command = sys.argv[1:]
told = json.loads(told)

network = None
if "NETWORK_NAME" in told:
  network = objects.Network.FromDict(dict(
    name=told["NETWORK_NAME"], uuid=told["NETWORK_UUID"], tags=told["NETWORK_TAGS"].split(),
    network=told.get("NETWORK_SUBNET"), gateway=told.get("NETWORK_GATEWAY"),
    network6=told.get("NETWORK_SUBNET6"), gateway6=told.get("NETWORK_GATEWAY6"),
    mac_prefix=told.get("NETWORK_MAC_PREFIX")))
nic = objects.NIC(
  mac=told["MAC"], ip=told.get("IP"), uuid=told["INTERFACE_UUID"], name=told.get("INTERFACE_NAME"),
  network=network and network.uuid, netinfo=network and network.ToDict(),
  nicparams={constants.NIC_MODE: told["MODE"], constants.NIC_LINK: told.get("LINK", ""),
             constants.NIC_VLAN: told.get("VLAN", "")})
objects.NIC.CheckParameterSyntax(nic.nicparams)
host = socket.gethostname()
instance = objects.Instance(name=told["INSTANCE"], primary_node=host, nics=[nic], tags=set(told["TAGS"].split()))
seq = int(told["INTERFACE_INDEX"])


def tap():
  """The name of the TAP, in the type in which OpenTap gives names: Debian's 3.0.2 gives bytes."""
  opened, fds, _ = hv_kvm.OpenTap(name="opened")
  assert fds
  return told["INTERFACE"] if isinstance(opened, str) else told["INTERFACE"].encode("ascii")


def stop():
  """The hooks after `gnt-instance shutdown`: on this node, the primary."""
  def environment():
    nics = [(nic.name, nic.uuid, nic.ip, nic.mac, told["MODE"], told.get("LINK", ""), told.get("VLAN", ""), nic.network,
             nic.netinfo)]
    return instance_utils.BuildInstanceHookEnv(
      instance.name, host, [], "debootstrap+default", "down", 128, 128, 1, nics, "plain", [], {}, {}, "kvm",
      instance.GetTags())

  def execute(nodes, path, phase, env):
    return {node: (None, False, backend.HooksRunner().RunHooks(path, phase, env)) for node in nodes}

  logical_unit = instance_operation.LUInstanceShutdown
  master = hooksmaster.HooksMaster(
    opcodes.OpInstanceShutdown.OP_ID, logical_unit.HPATH, (frozenset([host]), frozenset([host])), execute, None,
    environment, None, lambda *what: sys.exit(str(what)), logical_unit.HTYPE, "cluster", host)
  results = master.RunPhase(constants.HOOKS_PHASE_POST)
  ran = [(script, result) for script, result, _ in results[host][2]]
  assert ran == [("instance-stop-post.d/snf-network-hook", constants.HKR_SUCCESS)], results


try:
  if doing == "kvm":
    hv_kvm.KVMHypervisor._ConfigureNIC(instance, seq, nic, tap())
  elif doing == "call":
    name = told["INTERFACE"].encode("ascii")
    hv_base.ConfigureNIC(command + [name], instance, seq, nic, name)
  elif doing == "xen":
    hv_xen.XenPvmHypervisor._WriteNICInfoFile(instance, seq, nic)
  else:
    {"stop": stop}[doing]()
except errors.HypervisorError as err:
  # The script's last line end is part of it.
  sys.exit(str(err).rstrip())
