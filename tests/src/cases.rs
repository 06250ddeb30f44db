//! What every host must do. A case takes a [`Host`](crate::Host) and panics when the host is at fault.
//!
//! Each case has tenants, models and sessions of its own: cases run side by side, in any order.

pub mod bad_input;
pub mod budgets;
pub mod chat;
pub mod cors;
pub mod documents;
pub mod envelope;
pub mod idempotency;
pub mod jwt;
pub mod limits;
pub mod mcp;
pub mod models;
pub mod openai;
pub mod resolution;
pub mod search;
pub mod sessions;
pub mod speech;
pub mod streams;
pub mod tool_calling;
pub mod tools;

use crate::tenant::Tenant;

/// The tenants of all cases: what a host must be given before it runs them.
pub fn tenants() -> Vec<Tenant> {
    [
        resolution::tenants(),
        envelope::tenants(),
        bad_input::tenants(),
        chat::tenants(),
        sessions::tenants(),
        limits::tenants(),
        budgets::tenants(),
        idempotency::tenants(),
        models::tenants(),
        streams::tenants(),
        openai::tenants(),
        cors::tenants(),
        documents::tenants(),
        search::tenants(),
        tools::tenants(),
        tool_calling::tenants(),
        speech::tenants(),
        mcp::tenants(),
    ]
    .concat()
}

/// Calls `$run!` with the path of every case.
#[macro_export]
macro_rules! cases {
    ($run:ident) => {
        $run!(resolution::a_header_a_host_or_a_key_names_the_tenant);
        $run!(resolution::the_header_wins_over_the_host_and_the_host_over_the_key);
        $run!(resolution::nothing_names_a_tenant);
        $run!(resolution::an_unknown_tenant_is_told_and_never_guessed);
        $run!(resolution::wrong_credentials_are_refused);
        $run!(resolution::a_key_of_another_tenant_opens_nothing);
        $run!(resolution::an_expired_key_is_dead);
        $run!(resolution::a_key_without_the_scope_is_refused);
        $run!(resolution::an_open_tenant_asks_for_nothing);

        $run!(envelope::a_trace_is_taken_over_or_made);
        $run!(envelope::a_trace_that_is_no_trace_is_not_repeated);
        $run!(envelope::the_trace_reaches_the_model);
        $run!(envelope::every_response_is_secured);
        $run!(envelope::health_tells_the_tenant_its_models);
        $run!(envelope::liveness_and_readiness_need_no_tenant);
        $run!(envelope::the_description_names_every_route);
        $run!(envelope::unknown_routes_are_not_found);
        $run!(envelope::other_methods_are_told_which_are_allowed);

        $run!(bad_input::every_fault_of_a_chat_is_named_at_once);
        $run!(bad_input::each_field_has_its_range);
        $run!(bad_input::unknown_fields_are_ignored);
        $run!(bad_input::what_is_not_json_is_refused);
        $run!(bad_input::other_media_types_are_refused);
        $run!(bad_input::a_long_body_is_refused_whatever_it_announces);
        $run!(bad_input::a_refusal_ends_the_connection_by_its_word_only);
        $run!(bad_input::who_asks_is_said_once_only);
        $run!(bad_input::a_path_that_is_no_text_is_refused_in_shape);
        $run!(bad_input::a_session_needs_a_question);
        $run!(bad_input::every_fault_of_a_completion_is_named);
        $run!(bad_input::openai_clients_read_faults_in_their_shape);
        $run!(bad_input::queries_of_sessions_are_checked);
        $run!(bad_input::a_model_that_is_not_allowed_is_refused);
        $run!(bad_input::a_tool_that_is_not_enabled_ends_a_chat);

        $run!(chat::a_streamed_answer_comes_in_numbered_pieces);
        $run!(chat::an_answer_in_one_piece);
        $run!(chat::streaming_is_the_default);
        $run!(chat::every_character_arrives);
        $run!(chat::the_request_names_the_model);
        $run!(chat::the_model_sees_the_history_up_to_its_limit);
        $run!(chat::usage_is_the_models_or_an_estimate);

        $run!(sessions::history_is_paged_from_its_end);
        $run!(sessions::a_deleted_session_is_gone);
        $run!(sessions::sessions_are_listed_by_user_and_page);
        $run!(sessions::tenants_with_the_same_session_are_apart);
        $run!(sessions::an_old_message_makes_room);

        $run!(limits::a_burst_ends_before_the_minute_does);
        $run!(limits::concurrent_requests_get_exactly_the_limit);
        $run!(limits::users_are_counted_apart_and_together);
        $run!(limits::nobody_without_credentials_escapes_by_a_name);
        $run!(limits::answers_under_way_are_bounded);

        $run!(budgets::exactly_the_budget_can_be_spent);
        $run!(budgets::a_reservation_counts_while_the_answer_runs);
        $run!(budgets::a_failed_call_costs_nothing);
        $run!(budgets::the_month_is_counted_too);
        $run!(budgets::both_faces_spend_from_one_budget);

        $run!(idempotency::a_repeat_gets_the_first_answer);
        $run!(idempotency::a_streamed_repeat_gets_the_first_answer);
        $run!(idempotency::a_repeat_after_going_away_gets_what_there_was);
        $run!(idempotency::a_repeat_on_the_other_face);
        $run!(idempotency::another_body_is_a_mismatch);
        $run!(idempotency::a_repeat_during_the_first_must_wait);
        $run!(idempotency::a_failure_frees_the_key);
        $run!(idempotency::users_and_tenants_do_not_share_keys);
        $run!(idempotency::a_key_must_be_printable);

        $run!(models::a_failing_model_is_tried_again);
        $run!(models::the_models_wish_to_wait_is_kept);
        $run!(models::the_fallback_answers_for_a_failed_model);
        $run!(models::a_fallback_that_is_not_allowed_is_not_used);
        $run!(models::what_is_no_answer_is_an_error);
        $run!(models::a_refused_call_is_not_tried_again);
        $run!(models::a_model_that_keeps_failing_is_left_alone);
        $run!(models::a_model_that_never_begins_is_given_up);

        $run!(streams::an_answer_that_breaks_off_is_kept_truncated);
        $run!(streams::every_way_of_breaking_off_is_told);
        $run!(streams::a_client_that_goes_ends_the_models_work);
        $run!(streams::a_client_that_does_not_stream_may_go_too);
        $run!(streams::a_client_that_goes_before_the_answer_costs_its_prompt);
        $run!(streams::turns_of_a_session_wait_for_each_other);
        $run!(streams::pieces_leave_as_they_come);
        $run!(streams::silence_is_filled_with_comments);
        $run!(streams::a_model_that_falls_silent_is_given_up);
        $run!(streams::a_client_that_reads_nothing_costs_nothing);

        $run!(openai::a_completion_in_one_piece);
        $run!(openai::a_streamed_completion);
        $run!(openai::usage_comes_when_it_is_asked_for);
        $run!(openai::tools_pass_through_both_ways);
        $run!(openai::sampling_and_formats_pass_through);
        $run!(openai::a_session_is_kept_when_it_is_named);
        $run!(openai::a_session_keeps_no_tools);
        $run!(openai::models_are_listed_and_described);
        $run!(openai::limits_hold_here_too);
        $run!(openai::a_broken_stream_ends_with_an_error_and_done);

        $run!(cors::a_preflight_is_answered_by_the_tenant_of_the_host);
        $run!(cors::a_preflight_without_a_host_asks_all_tenants);
        $run!(cors::an_allowed_page_may_read_the_answer_and_errors);
        $run!(cors::other_pages_may_not);

        $run!(documents::a_document_is_taken_in_and_found);
        $run!(documents::a_repeat_replaces_a_document_whole);
        $run!(documents::documents_are_listed_by_name_and_deleted);
        $run!(documents::a_failure_half_way_leaves_the_old_version);
        $run!(documents::a_repeated_request_is_carried_out_once);
        $run!(documents::of_two_at_once_one_is_left_whole);
        $run!(documents::a_long_document_tells_how_far_it_is);
        $run!(documents::faults_of_a_document_are_named);
        $run!(documents::what_is_embedded_is_paid_for);

        $run!(search::an_answer_cites_its_sources_and_invents_none);
        $run!(search::a_stream_tells_sources_then_pieces_then_the_end);
        $run!(search::an_answer_is_kept_until_the_documents_change);
        $run!(search::tenants_with_the_same_documents_never_meet);
        $run!(search::equal_questions_at_once_are_answered_once);
        $run!(search::a_filter_chooses_documents);
        $run!(search::each_mode_looks_in_its_own_way);
        $run!(search::documents_that_give_orders_stay_data);
        $run!(search::side_questions_help_and_never_harm);
        $run!(search::failures_are_told_as_in_a_chat);
        $run!(search::faults_of_a_question_are_named);
        $run!(search::what_is_searched_is_limited_and_paid_for);
        $run!(search::embeddings_come_in_openais_shape);

        $run!(tools::the_tools_are_described);
        $run!(tools::permissions_are_checked_for_every_tool);
        $run!(tools::a_call_that_cannot_be_made_is_refused);
        $run!(tools::each_tool_gives_back_what_its_schema_says);
        $run!(tools::an_answer_that_cannot_be_used_is_repaired_once);
        $run!(tools::a_tool_that_takes_too_long_is_ended);
        $run!(tools::a_tool_whose_client_has_gone_is_ended);
        $run!(tools::a_model_that_fails_is_a_tool_that_fails);
        $run!(tools::documents_are_taken_in_as_by_the_route);
        $run!(tools::tools_pass_limits_and_budgets);
        $run!(tools::a_repeat_is_told_the_first_result_again);
        $run!(tools::texts_that_give_orders_stay_data);
        $run!(tools::a_chat_is_answered_with_the_result_of_its_tool);
        $run!(tools::a_chat_whose_tool_fails_is_refused);
        $run!(tools::only_documents_may_be_long);

        $run!(tool_calling::a_model_calls_a_tool_in_a_chat);
        $run!(tool_calling::the_openai_route_runs_tools_when_asked);
        $run!(tool_calling::calls_without_end_come_to_one);
        $run!(speech::a_text_becomes_audio_of_its_length);
        $run!(speech::each_format_has_its_type_and_its_start);
        $run!(speech::audio_leaves_as_it_is_made);
        $run!(speech::a_voice_is_chosen_from_the_list);
        $run!(speech::speed_is_kept_or_refused_as_the_list_says);
        $run!(speech::a_text_is_handed_on_as_it_is);
        $run!(speech::openais_face_speaks_too);
        $run!(speech::speech_has_to_be_switched_on);
        $run!(speech::faults_of_a_text_are_named);
        $run!(speech::an_engine_that_fails_is_told);
        $run!(speech::audio_that_breaks_off_is_cut);
        $run!(speech::a_client_that_goes_ends_the_engines_work);
        $run!(speech::what_is_spoken_is_limited_and_paid_for);
        $run!(mcp::a_client_shakes_hands);
        $run!(mcp::the_newest_version_has_no_handshake);
        $run!(mcp::tools_are_listed_and_called);
        $run!(mcp::documents_are_resources);
        $run!(mcp::resources_of_another_tenant_are_not_there);
        $run!(mcp::scopes_and_flags_hold_here_too);
        $run!(mcp::limits_and_budgets_hold_here_too);
        $run!(mcp::what_is_no_message_is_refused);
        $run!(mcp::a_page_asks_only_where_its_origin_may);
        $run!(mcp::a_large_body_is_for_documents_only);
    };
}

/// Calls `$run!` with the path of every case of hosts that have a verifier of tokens. They have tenants of their own:
/// [`jwt::tenants`].
#[macro_export]
macro_rules! jwt_cases {
    ($run:ident) => {
        $run!(jwt::a_token_opens_its_tenants_door);
        $run!(jwt::a_token_that_is_no_good_is_refused);
        $run!(jwt::a_token_is_good_for_its_own_tenant_only);
        $run!(jwt::users_are_apart);
        $run!(jwt::a_key_speaks_for_all_users_and_nobody_for_others);
        $run!(jwt::a_limit_counts_by_the_subject);
        $run!(jwt::scopes_are_those_of_the_claim);
        $run!(jwt::unknown_keys_are_not_asked_for_again_and_again);
        $run!(jwt::without_keys_nobody_gets_in);
    };
}
