//! Everything that is particular to an operating system; a port adds one module here and nothing elsewhere.

mod strings;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::{
    CaughtSignals, Cgroup, Children, Exit, OomCounter, Poll, ProcessHandle, ProcessInfo, Reaped, SpawnError, Spawner,
    Start, become_subreaper, cgroup_tree, cgroups_in, environ_of, group_signal, info_of,
    keep_descriptors_from_children, kill_cgroup, look_at, mark_of, may_signal, members_of_cgroup, own_cgroup,
    own_group, prepare_signals, processes, raise_descriptor_limit, reap, reap_killed, reap_unless_alive, remove_cgroup,
    remove_ownerless_cgroup, standard_streams_of, stdin_from, unreaped_signal, wait_for_cgroups,
};
pub(crate) use strings::StringBlock;
