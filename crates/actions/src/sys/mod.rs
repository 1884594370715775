//! Everything that is particular to an operating system; a port adds one module here and nothing elsewhere.

mod strings;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::{
    CaughtSignals, Children, Exit, OomCounter, Poll, ProcessHandle, ProcessInfo, Reaped, Spawner, Start,
    become_subreaper, environ_of, group_signal, info_of, keep_descriptors_from_children, look_at, mark_of, may_signal,
    own_group, prepare_signals, processes, raise_descriptor_limit, reap, reap_killed, reap_unless_alive,
    standard_streams_of, stdin_from, unreaped_signal,
};
pub(crate) use strings::StringBlock;
