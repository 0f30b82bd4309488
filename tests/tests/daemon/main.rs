//! The daemon, which follows the machine and makes what commands and programs ask for.

mod a_change_is_rolled_back_by_the_daemon;
mod commands_are_made_by_the_daemon;
mod programs_edit_through_the_socket;
mod guests_come_and_go;
mod the_daemon_follows_the_machine;
