//! What becomes of a packet: at every hook, on every kind of device, by all three evaluators.

mod a_denied_port_never_answers;
mod any_bytes_are_survived;
mod devices_are_judged_or_refused;
mod egress_drops_are_silent;
mod errors_reach_those_they_concern;
mod every_device_is_judged_or_refused;
mod every_hook_judges_alike;
mod groups_protect_a_machine;
mod guests_are_protected_from_outside;
mod mutated_packets_are_judged_alike;
mod nftables_agrees;
mod own_multicast_reaches_own_listeners;
mod packets_are_judged_right;
mod segments_are_counted;
mod three_evaluators_agree;
