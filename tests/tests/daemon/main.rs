//! The daemon, which follows the machine and makes what commands and programs ask for.

mod a_change_is_rolled_back_by_the_daemon;
mod addresses_of_all_kinds;
mod commands_are_made_by_the_daemon;
mod guests_come_and_go;
mod programs_edit_through_the_socket;
mod the_daemon_follows_the_machine;
