//! Shapes of the responses that the protocol crate decodes, as in Kafka's own schemas
//! (`clients/src/main/resources/common/message/*Response.json`), for the versions of THE table.

use super::shape::{
    Shape, array, boolean, bytes, float64, int8, int8s, int16, int32, int32s, int64, optional,
    string, strings, structure, uuid,
};

/// For its `throttle_time_ms` alone: Produce has a codec of its own.
pub(super) static PRODUCE: Shape = Shape(&[
    array!("responses" => [
        string("name").until(12),
        uuid("topic_id").since(13),
        array!("partition_responses" => [
            int32("index"),
            int16("error_code"),
            int64("base_offset"),
            int64("log_append_time_ms"),
            int64("log_start_offset").since(5),
            array!("record_errors" => [
                int32("batch_index"),
                string("batch_index_error_message"),
            ])
            .since(8),
            string("error_message").since(8),
        ]),
    ]),
    int32("throttle_time_ms"),
]);

/// The front of a Fetch response, likewise.
pub(super) static FETCH_FRONT: Shape = Shape(&[int32("throttle_time_ms").since(1)]);

pub(super) static LIST_OFFSETS: Shape = Shape(&[
    int32("throttle_time_ms").since(2),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
            int64("timestamp"),
            int64("offset"),
            int32("leader_epoch").since(4),
        ]),
    ]),
]);

pub(super) static METADATA: Shape = Shape(&[
    int32("throttle_time_ms").since(3),
    array!("brokers" => [
        int32("node_id"),
        string("host"),
        int32("port"),
        string("rack").since(1),
    ]),
    string("cluster_id").since(2),
    int32("controller_id").since(1),
    array!("topics" => [
        int16("error_code"),
        string("name"),
        uuid("topic_id").since(10),
        boolean("is_internal").since(1),
        array!("partitions" => [
            int16("error_code"),
            int32("partition_index"),
            int32("leader_id"),
            int32("leader_epoch").since(7),
            int32s("replica_nodes"),
            int32s("isr_nodes"),
            int32s("offline_replicas").since(5),
        ]),
        int32("topic_authorized_operations").since(8),
    ]),
    int32("cluster_authorized_operations").since(8).until(10),
    int16("error_code").since(13),
]);

pub(super) static OFFSET_COMMIT: Shape = Shape(&[
    int32("throttle_time_ms").since(3),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
        ]),
    ]),
]);

pub(super) static OFFSET_FETCH: Shape = Shape(&[
    int32("throttle_time_ms").since(3),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int64("committed_offset"),
            int32("committed_leader_epoch").since(5),
            string("metadata"),
            int16("error_code"),
        ]),
    ])
    .until(7),
    int16("error_code").since(2).until(7),
    array!("groups" => [
        string("group_id"),
        array!("topics" => [
            string("name"),
            array!("partitions" => [
                int32("partition_index"),
                int64("committed_offset"),
                int32("committed_leader_epoch"),
                string("metadata"),
                int16("error_code"),
            ]),
        ]),
        int16("error_code"),
    ])
    .since(8),
]);

pub(super) static FIND_COORDINATOR: Shape = Shape(&[
    int32("throttle_time_ms").since(1),
    int16("error_code").until(3),
    string("error_message").since(1).until(3),
    int32("node_id").until(3),
    string("host").until(3),
    int32("port").until(3),
    array!("coordinators" => [
        string("key"),
        int32("node_id"),
        string("host"),
        int32("port"),
        int16("error_code"),
        string("error_message"),
    ])
    .since(4),
]);

pub(super) static JOIN_GROUP: Shape = Shape(&[
    int32("throttle_time_ms").since(2),
    int16("error_code"),
    int32("generation_id"),
    string("protocol_type").since(7),
    string("protocol_name"),
    string("leader"),
    boolean("skip_assignment").since(9),
    string("member_id"),
    array!("members" => [
        string("member_id"),
        string("group_instance_id").since(5),
        bytes("metadata"),
    ]),
]);

pub(super) static HEARTBEAT: Shape =
    Shape(&[int32("throttle_time_ms").since(1), int16("error_code")]);

pub(super) static LEAVE_GROUP: Shape = Shape(&[
    int32("throttle_time_ms").since(1),
    int16("error_code"),
    array!("members" => [
        string("member_id"),
        string("group_instance_id"),
        int16("error_code"),
    ])
    .since(3),
]);

pub(super) static SYNC_GROUP: Shape = Shape(&[
    int32("throttle_time_ms").since(1),
    int16("error_code"),
    string("protocol_type").since(5),
    string("protocol_name").since(5),
    bytes("assignment"),
]);

pub(super) static DESCRIBE_GROUPS: Shape = Shape(&[
    int32("throttle_time_ms").since(1),
    array!("groups" => [
        int16("error_code"),
        string("error_message").since(6),
        string("group_id"),
        string("group_state"),
        string("protocol_type"),
        string("protocol_data"),
        array!("members" => [
            string("member_id"),
            string("group_instance_id").since(4),
            string("client_id"),
            string("client_host"),
            bytes("member_metadata"),
            bytes("member_assignment"),
        ]),
        int32("authorized_operations").since(3),
    ]),
]);

pub(super) static LIST_GROUPS: Shape = Shape(&[
    int32("throttle_time_ms").since(1),
    int16("error_code"),
    array!("groups" => [
        string("group_id"),
        string("protocol_type"),
        string("group_state").since(4),
        string("group_type").since(5),
    ]),
]);

pub(super) static CONSUMER_GROUP_HEARTBEAT: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    string("error_message"),
    string("member_id"),
    int32("member_epoch"),
    int32("heartbeat_interval_ms"),
    optional!("assignment" => [
        array!("topic_partitions" => [
            uuid("topic_id"),
            int32s("partitions"),
        ]),
    ]),
]);

pub(super) static CONSUMER_GROUP_DESCRIBE: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("groups" => [
        int16("error_code"),
        string("error_message"),
        string("group_id"),
        string("group_state"),
        int32("group_epoch"),
        int32("assignment_epoch"),
        string("assignor_name"),
        array!("members" => [
            string("member_id"),
            string("instance_id"),
            string("rack_id"),
            int32("member_epoch"),
            string("client_id"),
            string("client_host"),
            strings("subscribed_topic_names"),
            string("subscribed_topic_regex"),
            structure!("assignment" => [
                array!("topic_partitions" => [
                    uuid("topic_id"),
                    string("topic_name"),
                    int32s("partitions"),
                ]),
            ]),
            structure!("target_assignment" => [
                array!("topic_partitions" => [
                    uuid("topic_id"),
                    string("topic_name"),
                    int32s("partitions"),
                ]),
            ]),
            int8("member_type").since(1),
        ]),
        int32("authorized_operations"),
    ]),
]);

pub(super) static API_VERSIONS: Shape = Shape(&[
    int16("error_code"),
    array!("api_keys" => [
        int16("api_key"),
        int16("min_version"),
        int16("max_version"),
    ]),
    int32("throttle_time_ms").since(1),
    array!("supported_features" => [
        string("name").since(3),
        int16("min_version").since(3),
        int16("max_version").since(3),
    ])
    .tagged(0),
    int64("finalized_features_epoch").tagged(1),
    array!("finalized_features" => [
        string("name").since(3),
        int16("max_version_level").since(3),
        int16("min_version_level").since(3),
    ])
    .tagged(2),
    boolean("zk_migration_ready").tagged(3),
]);

pub(super) static CREATE_TOPICS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("topics" => [
        string("name"),
        uuid("topic_id").since(7),
        int16("error_code"),
        string("error_message"),
        int32("num_partitions").since(5),
        int16("replication_factor").since(5),
        array!("configs" => [
            string("name"),
            string("value"),
            boolean("read_only"),
            int8("config_source"),
            boolean("is_sensitive"),
        ]).since(5),
        int16("topic_config_error_code").tagged(0),
    ]),
]);

pub(super) static DELETE_TOPICS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("responses" => [
        string("name"),
        uuid("topic_id").since(6),
        int16("error_code"),
        string("error_message").since(5),
    ]),
]);

pub(super) static DELETE_RECORDS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int64("low_watermark"),
            int16("error_code"),
        ]),
    ]),
]);

pub(super) static INIT_PRODUCER_ID: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    int64("producer_id"),
    int16("producer_epoch"),
]);

pub(super) static OFFSET_FOR_LEADER_EPOCH: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("topics" => [
        string("topic"),
        array!("partitions" => [
            int16("error_code"),
            int32("partition"),
            int32("leader_epoch"),
            int64("end_offset"),
        ]),
    ]),
]);

pub(super) static DESCRIBE_CONFIGS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("results" => [
        int16("error_code"),
        string("error_message"),
        int8("resource_type"),
        string("resource_name"),
        array!("configs" => [
            string("name"),
            string("value"),
            boolean("read_only"),
            int8("config_source"),
            boolean("is_sensitive"),
            array!("synonyms" => [
                string("name"),
                string("value"),
                int8("source"),
            ]),
            int8("config_type").since(3),
            string("documentation").since(3),
        ]),
    ]),
]);

pub(super) static CREATE_PARTITIONS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("results" => [
        string("name"),
        int16("error_code"),
        string("error_message"),
    ]),
]);

pub(super) static DELETE_GROUPS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("results" => [
        string("group_id"),
        int16("error_code"),
    ]),
]);

pub(super) static INCREMENTAL_ALTER_CONFIGS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("responses" => [
        int16("error_code"),
        string("error_message"),
        int8("resource_type"),
        string("resource_name"),
    ]),
]);

pub(super) static OFFSET_DELETE: Shape = Shape(&[
    int16("error_code"),
    int32("throttle_time_ms"),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
        ]),
    ]),
]);

pub(super) static DESCRIBE_CLUSTER: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    string("error_message"),
    int8("endpoint_type").since(1),
    string("cluster_id"),
    int32("controller_id"),
    array!("brokers" => [
        int32("broker_id"),
        string("host"),
        int32("port"),
        string("rack"),
        boolean("is_fenced").since(2),
    ]),
    int32("cluster_authorized_operations"),
]);

pub(super) static ALTER_CONFIGS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("responses" => [
        int16("error_code"),
        string("error_message"),
        int8("resource_type"),
        string("resource_name"),
    ]),
]);

pub(super) static DESCRIBE_LOG_DIRS: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code").since(3),
    array!("results" => [
        int16("error_code"),
        string("log_dir"),
        array!("topics" => [
            string("name"),
            array!("partitions" => [
                int32("partition_index"),
                int64("partition_size"),
                int64("offset_lag"),
                boolean("is_future_key"),
            ]),
        ]),
        int64("total_bytes").since(4),
        int64("usable_bytes").since(4),
    ]),
]);

pub(super) static DESCRIBE_PRODUCERS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
            string("error_message"),
            array!("active_producers" => [
                int64("producer_id"),
                int32("producer_epoch"),
                int32("last_sequence"),
                int64("last_timestamp"),
                int32("coordinator_epoch"),
                int64("current_txn_start_offset"),
            ]),
        ]),
    ]),
]);

pub(super) static GET_TELEMETRY_SUBSCRIPTIONS: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    uuid("client_instance_id"),
    int32("subscription_id"),
    int8s("accepted_compression_types"),
    int32("push_interval_ms"),
    int32("telemetry_max_bytes"),
    boolean("delta_temporality"),
    strings("requested_metrics"),
]);

pub(super) static PUSH_TELEMETRY: Shape = Shape(&[int32("throttle_time_ms"), int16("error_code")]);

pub(super) static LIST_CONFIG_RESOURCES: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    array!("config_resources" => [
        string("resource_name"),
        int8("resource_type").since(1),
    ]),
]);

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("topics" => [
        int16("error_code"),
        string("name"),
        uuid("topic_id"),
        boolean("is_internal"),
        array!("partitions" => [
            int16("error_code"),
            int32("partition_index"),
            int32("leader_id"),
            int32("leader_epoch"),
            int32s("replica_nodes"),
            int32s("isr_nodes"),
            int32s("eligible_leader_replicas"),
            int32s("last_known_elr"),
            int32s("offline_replicas"),
        ]),
        int32("topic_authorized_operations"),
    ]),
    optional!("next_cursor" => [
        string("topic_name"),
        int32("partition_index"),
    ]),
]);

pub(super) static DESCRIBE_CLIENT_QUOTAS: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    string("error_message"),
    array!("entries" => [
        array!("entity" => [
            string("entity_type"),
            string("entity_name"),
        ]),
        array!("values" => [
            string("key"),
            float64("value"),
        ]),
    ]),
]);

pub(super) static ALTER_CLIENT_QUOTAS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("entries" => [
        int16("error_code"),
        string("error_message"),
        array!("entity" => [
            string("entity_type"),
            string("entity_name"),
        ]),
    ]),
]);

pub(super) static ADD_PARTITIONS_TO_TXN: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code").since(4),
    array!("results_by_transaction" => [
        string("transactional_id"),
        array!("topic_results" => [
            string("name"),
            array!("results_by_partition" => [
                int32("partition_index"),
                int16("partition_error_code"),
            ]),
        ]),
    ])
    .since(4),
    array!("results_by_topic_v3_and_below" => [
        string("name"),
        array!("results_by_partition" => [
            int32("partition_index"),
            int16("partition_error_code"),
        ]),
    ])
    .until(3),
]);

pub(super) static ADD_OFFSETS_TO_TXN: Shape =
    Shape(&[int32("throttle_time_ms"), int16("error_code")]);

pub(super) static END_TXN: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    int64("producer_id").since(5),
    int16("producer_epoch").since(5),
]);

pub(super) static WRITE_TXN_MARKERS: Shape = Shape(&[array!("markers" => [
    int64("producer_id"),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
        ]),
    ]),
])]);

pub(super) static TXN_OFFSET_COMMIT: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
        ]),
    ]),
]);

pub(super) static DESCRIBE_TRANSACTIONS: Shape = Shape(&[
    int32("throttle_time_ms"),
    array!("transaction_states" => [
        int16("error_code"),
        string("transactional_id"),
        string("transaction_state"),
        int32("transaction_timeout_ms"),
        int64("transaction_start_time_ms"),
        int64("producer_id"),
        int16("producer_epoch"),
        array!("topics" => [
            string("topic"),
            int32s("partitions"),
        ]),
    ]),
]);

pub(super) static LIST_TRANSACTIONS: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    strings("unknown_state_filters"),
    array!("transaction_states" => [
        string("transactional_id"),
        int64("producer_id"),
        string("transaction_state"),
    ]),
]);

pub(super) static ALTER_PARTITION: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    array!("topics" => [
        uuid("topic_id"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
            int32("leader_id"),
            int32("leader_epoch"),
            int32s("isr"),
            int8("leader_recovery_state"),
            int32("partition_epoch"),
        ]),
    ]),
]);

pub(super) static ENVELOPE: Shape = Shape(&[bytes("response_data"), int16("error_code")]);

pub(super) static BROKER_REGISTRATION: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    int64("broker_epoch"),
]);

pub(super) static BROKER_HEARTBEAT: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    boolean("is_caught_up"),
    boolean("is_fenced"),
    boolean("should_shut_down"),
]);

pub(super) static ALLOCATE_PRODUCER_IDS: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    int64("producer_id_start"),
    int32("producer_id_len"),
]);

pub(super) static DESCRIBE_QUORUM: Shape = Shape(&[
    int16("error_code"),
    string("error_message").since(2),
    array!("topics" => [
        string("topic_name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
            string("error_message").since(2),
            int32("leader_id"),
            int32("leader_epoch"),
            int64("high_watermark"),
            array!("current_voters" => [
                int32("replica_id"),
                uuid("replica_directory_id").since(2),
                int64("log_end_offset"),
                int64("last_fetch_timestamp").since(1),
                int64("last_caught_up_timestamp").since(1),
            ]),
            array!("observers" => [
                int32("replica_id"),
                uuid("replica_directory_id").since(2),
                int64("log_end_offset"),
                int64("last_fetch_timestamp").since(1),
                int64("last_caught_up_timestamp").since(1),
            ]),
        ]),
    ]),
    array!("nodes" => [
        int32("node_id"),
        array!("listeners" => [
            string("name"),
            string("host"),
            int16("port"),
        ]),
    ])
    .since(2),
]);

pub(super) static UNREGISTER_BROKER: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    string("error_message"),
]);

pub(super) static ELECT_LEADERS: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code").since(1),
    array!("replica_election_results" => [
        string("topic"),
        array!("partition_result" => [
            int32("partition_id"),
            int16("error_code"),
            string("error_message"),
        ]),
    ]),
]);

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Shape = Shape(&[
    int32("throttle_time_ms"),
    boolean("allow_replication_factor_change").since(1),
    int16("error_code"),
    string("error_message"),
    array!("responses" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int16("error_code"),
            string("error_message"),
        ]),
    ]),
]);

pub(super) static LIST_PARTITION_REASSIGNMENTS: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    string("error_message"),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int32s("replicas"),
            int32s("adding_replicas"),
            int32s("removing_replicas"),
        ]),
    ]),
]);

pub(super) static UPDATE_FEATURES: Shape = Shape(&[
    int32("throttle_time_ms"),
    int16("error_code"),
    string("error_message"),
    array!("results" => [
        string("feature"),
        int16("error_code"),
        string("error_message"),
    ])
    .until(1),
]);
