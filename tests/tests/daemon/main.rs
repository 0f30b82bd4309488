//! The daemon, which follows the machine.

mod the_daemon_follows_the_machine;
