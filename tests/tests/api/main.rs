//! The EC2 API: real clients drive it, and packets are judged by what they made.

mod packets_are_judged_by_what_clients_make;
mod requests_are_checked;
mod terraform_finds_what_it_made;
mod the_clouds_own_clients_are_served;
