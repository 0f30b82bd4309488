//! Flows: what one opens, how they are found, kept, counted and ended.

mod a_flow_opens_one_interface;
mod floods_cut_nobody;
mod flows_are_found_under_concurrency;
mod flows_can_be_ended;
mod flows_stay_whole_in_parallel_traffic;
mod room_for_flows_changes_live;
