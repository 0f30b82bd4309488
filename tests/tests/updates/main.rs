//! Changes under traffic: what they cost, what they cut, and what a killed one leaves.

mod a_dry_run_tells_what_a_change_does;
mod a_killed_command_leaves_old_or_new;
mod an_unconfirmed_change_takes_itself_back;
mod changes_apply_live;
mod counters_go_on_when_tables_grow;
mod edits_cost_what_they_change;
mod every_packet_meets_one_policy;
