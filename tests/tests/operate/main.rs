//! What an administrator asks of sg, and what it answers.

mod a_done_command_is_no_failure;
mod a_trace_tells_each_packets_story;
mod counters_are_watched_as_they_grow;
mod diagnose_tells_who_is_to_blame;
mod doctor_says_what_to_do;
mod events_account_for_every_drop;
mod explain_says_what_the_kernel_does;
mod flow_logs_read_as_vpc_records;
mod json_has_its_schema;
mod the_documents_tell_the_truth;
mod verify_finds_what_differs;
