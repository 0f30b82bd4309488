//! What a user may write, and what becomes of it.

mod any_file_ends_soon;
mod attach_keeps_what_is_not_said;
mod audited_interfaces_let_everything_pass;
mod bad_input_changes_nothing;
mod check_gives_advice;
mod entries_match_devices;
mod examples_do_what_they_say;
mod input_is_uniform;
mod large_policies_fit;
mod policies_come_from_aws;
