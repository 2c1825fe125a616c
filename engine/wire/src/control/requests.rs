//! Shapes of the requests that the protocol crate decodes, as in Kafka's own schemas
//! (`clients/src/main/resources/common/message/*Request.json`), for the versions of THE table.

use super::shape::{
    Shape, array, boolean, bytes, float64, int8, int8s, int16, int32, int32s, int64, int64s,
    optional, string, strings, uuid, uuids,
};

pub(super) static LIST_OFFSETS: Shape = Shape(&[
    int32("replica_id"),
    int8("isolation_level").since(2),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int32("current_leader_epoch").since(4),
            int64("timestamp"),
        ]),
    ]),
    int32("timeout_ms").since(10),
]);

pub(super) static METADATA: Shape = Shape(&[
    array!("topics" => [
        uuid("topic_id").since(10),
        string("name"),
    ]),
    boolean("allow_auto_topic_creation").since(4),
    boolean("include_cluster_authorized_operations")
        .since(8)
        .until(10),
    boolean("include_topic_authorized_operations").since(8),
]);

pub(super) static OFFSET_COMMIT: Shape = Shape(&[
    string("group_id"),
    int32("generation_id_or_member_epoch"),
    string("member_id"),
    string("group_instance_id").since(7),
    int64("retention_time_ms").until(4),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int64("committed_offset"),
            int32("committed_leader_epoch").since(6),
            string("committed_metadata"),
        ]),
    ]),
]);

pub(super) static OFFSET_FETCH: Shape = Shape(&[
    string("group_id").until(7),
    array!("topics" => [
        string("name"),
        int32s("partition_indexes"),
    ])
    .until(7),
    array!("groups" => [
        string("group_id"),
        string("member_id").since(9),
        int32("member_epoch").since(9),
        array!("topics" => [
            string("name"),
            int32s("partition_indexes"),
        ]),
    ])
    .since(8),
    boolean("require_stable").since(7),
]);

pub(super) static CONSUMER_GROUP_HEARTBEAT: Shape = Shape(&[
    string("group_id"),
    string("member_id"),
    int32("member_epoch"),
    string("instance_id"),
    string("rack_id"),
    int32("rebalance_timeout_ms"),
    strings("subscribed_topic_names"),
    string("subscribed_topic_regex").since(1),
    string("server_assignor"),
    array!("topic_partitions" => [
        uuid("topic_id"),
        int32s("partitions"),
    ]),
]);

pub(super) static CONSUMER_GROUP_DESCRIBE: Shape = Shape(&[
    strings("group_ids"),
    boolean("include_authorized_operations"),
]);

pub(super) static FIND_COORDINATOR: Shape = Shape(&[
    string("key").until(3),
    int8("key_type").since(1),
    strings("coordinator_keys").since(4),
]);

pub(super) static JOIN_GROUP: Shape = Shape(&[
    string("group_id"),
    int32("session_timeout_ms"),
    int32("rebalance_timeout_ms").since(1),
    string("member_id"),
    string("group_instance_id").since(5),
    string("protocol_type"),
    array!("protocols" => [
        string("name"),
        bytes("metadata"),
    ]),
    string("reason").since(8),
]);

pub(super) static HEARTBEAT: Shape = Shape(&[
    string("group_id"),
    int32("generation_id"),
    string("member_id"),
    string("group_instance_id").since(3),
]);

pub(super) static LEAVE_GROUP: Shape = Shape(&[
    string("group_id"),
    string("member_id").until(2),
    array!("members" => [
        string("member_id"),
        string("group_instance_id"),
        string("reason").since(5),
    ])
    .since(3),
]);

pub(super) static SYNC_GROUP: Shape = Shape(&[
    string("group_id"),
    int32("generation_id"),
    string("member_id"),
    string("group_instance_id").since(3),
    string("protocol_type").since(5),
    string("protocol_name").since(5),
    array!("assignments" => [
        string("member_id"),
        bytes("assignment"),
    ]),
]);

pub(super) static DESCRIBE_GROUPS: Shape = Shape(&[
    strings("groups"),
    boolean("include_authorized_operations").since(3),
]);

pub(super) static LIST_GROUPS: Shape = Shape(&[
    strings("states_filter").since(4),
    strings("types_filter").since(5),
]);

pub(super) static API_VERSIONS: Shape = Shape(&[
    string("client_software_name").since(3),
    string("client_software_version").since(3),
]);

pub(super) static CREATE_TOPICS: Shape = Shape(&[
    array!("topics" => [
        string("name"),
        int32("num_partitions"),
        int16("replication_factor"),
        array!("assignments" => [
            int32("partition_index"),
            int32s("broker_ids"),
        ]),
        array!("configs" => [
            string("name"),
            string("value"),
        ]),
    ]),
    int32("timeout_ms"),
    boolean("validate_only"),
]);

pub(super) static DELETE_TOPICS: Shape = Shape(&[
    array!("topics" => [
        string("name"),
        uuid("topic_id"),
    ])
    .since(6),
    strings("topic_names").until(5),
    int32("timeout_ms"),
]);

pub(super) static DELETE_RECORDS: Shape = Shape(&[
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int64("offset"),
        ]),
    ]),
    int32("timeout_ms"),
]);

pub(super) static INIT_PRODUCER_ID: Shape = Shape(&[
    string("transactional_id"),
    int32("transaction_timeout_ms"),
    int64("producer_id").since(3),
    int16("producer_epoch").since(3),
]);

pub(super) static OFFSET_FOR_LEADER_EPOCH: Shape = Shape(&[
    int32("replica_id").since(3),
    array!("topics" => [
        string("topic"),
        array!("partitions" => [
            int32("partition"),
            int32("current_leader_epoch"),
            int32("leader_epoch"),
        ]),
    ]),
]);

pub(super) static DESCRIBE_CONFIGS: Shape = Shape(&[
    array!("resources" => [
        int8("resource_type"),
        string("resource_name"),
        strings("configuration_keys"),
    ]),
    boolean("include_synonyms"),
    boolean("include_documentation").since(3),
]);

pub(super) static CREATE_PARTITIONS: Shape = Shape(&[
    array!("topics" => [
        string("name"),
        int32("count"),
        array!("assignments" => [int32s("broker_ids")]),
    ]),
    int32("timeout_ms"),
    boolean("validate_only"),
]);

pub(super) static DELETE_GROUPS: Shape = Shape(&[strings("groups_names")]);

pub(super) static INCREMENTAL_ALTER_CONFIGS: Shape = Shape(&[
    array!("resources" => [
        int8("resource_type"),
        string("resource_name"),
        array!("configs" => [
            string("name"),
            int8("config_operation"),
            string("value"),
        ]),
    ]),
    boolean("validate_only"),
]);

pub(super) static OFFSET_DELETE: Shape = Shape(&[
    string("group_id"),
    array!("topics" => [
        string("name"),
        array!("partitions" => [int32("partition_index")]),
    ]),
]);

pub(super) static DESCRIBE_CLUSTER: Shape = Shape(&[
    boolean("include_cluster_authorized_operations"),
    int8("endpoint_type").since(1),
    boolean("include_fenced_brokers").since(2),
]);

pub(super) static ALTER_CONFIGS: Shape = Shape(&[
    array!("resources" => [
        int8("resource_type"),
        string("resource_name"),
        array!("configs" => [
            string("name"),
            string("value"),
        ]),
    ]),
    boolean("validate_only"),
]);

pub(super) static DESCRIBE_LOG_DIRS: Shape = Shape(&[array!("topics" => [
    string("topic"),
    int32s("partitions"),
])]);

pub(super) static DESCRIBE_PRODUCERS: Shape = Shape(&[array!("topics" => [
    string("name"),
    int32s("partition_indexes"),
])]);

pub(super) static GET_TELEMETRY_SUBSCRIPTIONS: Shape = Shape(&[uuid("client_instance_id")]);

pub(super) static PUSH_TELEMETRY: Shape = Shape(&[
    uuid("client_instance_id"),
    int32("subscription_id"),
    boolean("terminating"),
    int8("compression_type"),
    bytes("metrics"),
]);

pub(super) static LIST_CONFIG_RESOURCES: Shape = Shape(&[int8s("resource_types").since(1)]);

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Shape = Shape(&[
    array!("topics" => [string("name")]),
    int32("response_partition_limit"),
    optional!("cursor" => [
        string("topic_name"),
        int32("partition_index"),
    ]),
]);

pub(super) static DESCRIBE_CLIENT_QUOTAS: Shape = Shape(&[
    array!("components" => [
        string("entity_type"),
        int8("match_type"),
        string("match"),
    ]),
    boolean("strict"),
]);

pub(super) static ALTER_CLIENT_QUOTAS: Shape = Shape(&[
    array!("entries" => [
        array!("entity" => [
            string("entity_type"),
            string("entity_name"),
        ]),
        array!("ops" => [
            string("key"),
            float64("value"),
            boolean("remove"),
        ]),
    ]),
    boolean("validate_only"),
]);

pub(super) static ADD_PARTITIONS_TO_TXN: Shape = Shape(&[
    array!("transactions" => [
        string("transactional_id"),
        int64("producer_id"),
        int16("producer_epoch"),
        boolean("verify_only"),
        array!("topics" => [
            string("name"),
            int32s("partitions"),
        ]),
    ])
    .since(4),
    string("v3_and_below_transactional_id").until(3),
    int64("v3_and_below_producer_id").until(3),
    int16("v3_and_below_producer_epoch").until(3),
    array!("v3_and_below_topics" => [
        string("name"),
        int32s("partitions"),
    ])
    .until(3),
]);

pub(super) static ADD_OFFSETS_TO_TXN: Shape = Shape(&[
    string("transactional_id"),
    int64("producer_id"),
    int16("producer_epoch"),
    string("group_id"),
]);

pub(super) static END_TXN: Shape = Shape(&[
    string("transactional_id"),
    int64("producer_id"),
    int16("producer_epoch"),
    boolean("committed"),
]);

pub(super) static WRITE_TXN_MARKERS: Shape = Shape(&[array!("markers" => [
    int64("producer_id"),
    int16("producer_epoch"),
    boolean("transaction_result"),
    array!("topics" => [
        string("name"),
        int32s("partition_indexes"),
    ]),
    int32("coordinator_epoch"),
])]);

pub(super) static TXN_OFFSET_COMMIT: Shape = Shape(&[
    string("transactional_id"),
    string("group_id"),
    int64("producer_id"),
    int16("producer_epoch"),
    int32("generation_id").since(3),
    string("member_id").since(3),
    string("group_instance_id").since(3),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int64("committed_offset"),
            int32("committed_leader_epoch").since(2),
            string("committed_metadata"),
        ]),
    ]),
]);

pub(super) static DESCRIBE_TRANSACTIONS: Shape = Shape(&[strings("transactional_ids")]);

pub(super) static LIST_TRANSACTIONS: Shape = Shape(&[
    strings("state_filters"),
    int64s("producer_id_filters"),
    int64("duration_filter").since(1),
    string("transactional_id_pattern").since(2),
]);

pub(super) static ALTER_PARTITION: Shape = Shape(&[
    int32("broker_id"),
    int64("broker_epoch"),
    array!("topics" => [
        uuid("topic_id"),
        array!("partitions" => [
            int32("partition_index"),
            int32("leader_epoch"),
            array!("new_isr_with_epochs" => [
                int32("broker_id"),
                int64("broker_epoch"),
            ]),
            int8("leader_recovery_state"),
            int32("partition_epoch"),
        ]),
    ]),
]);

pub(super) static ENVELOPE: Shape = Shape(&[
    bytes("request_data"),
    bytes("request_principal"),
    bytes("client_host_address"),
]);

pub(super) static BROKER_REGISTRATION: Shape = Shape(&[
    int32("broker_id"),
    string("cluster_id"),
    uuid("incarnation_id"),
    array!("listeners" => [
        string("name"),
        string("host"),
        int16("port"),
        int16("security_protocol"),
    ]),
    array!("features" => [
        string("name"),
        int16("min_supported_version"),
        int16("max_supported_version"),
    ]),
    string("rack"),
    boolean("is_migrating_zk_broker"),
    uuids("log_dirs"),
    int64("previous_broker_epoch"),
]);

pub(super) static BROKER_HEARTBEAT: Shape = Shape(&[
    int32("broker_id"),
    int64("broker_epoch"),
    int64("current_metadata_offset"),
    boolean("want_fence"),
    boolean("want_shut_down"),
    uuids("offline_log_dirs").tagged(0),
]);

pub(super) static ALLOCATE_PRODUCER_IDS: Shape =
    Shape(&[int32("broker_id"), int64("broker_epoch")]);

pub(super) static DESCRIBE_QUORUM: Shape = Shape(&[array!("topics" => [
    string("topic_name"),
    array!("partitions" => [int32("partition_index")]),
])]);

pub(super) static UNREGISTER_BROKER: Shape = Shape(&[int32("broker_id")]);

pub(super) static ELECT_LEADERS: Shape = Shape(&[
    int8("election_type").since(1),
    array!("topic_partitions" => [
        string("topic"),
        int32s("partitions"),
    ]),
    int32("timeout_ms"),
]);

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Shape = Shape(&[
    int32("timeout_ms"),
    boolean("allow_replication_factor_change").since(1),
    array!("topics" => [
        string("name"),
        array!("partitions" => [
            int32("partition_index"),
            int32s("replicas"),
        ]),
    ]),
]);

pub(super) static LIST_PARTITION_REASSIGNMENTS: Shape = Shape(&[
    int32("timeout_ms"),
    array!("topics" => [
        string("name"),
        int32s("partition_indexes"),
    ]),
]);

pub(super) static UPDATE_FEATURES: Shape = Shape(&[
    int32("timeout_ms"),
    array!("feature_updates" => [
        string("feature"),
        int16("max_version_level"),
        boolean("allow_downgrade").until(0),
        int8("upgrade_type").since(1),
    ]),
    boolean("validate_only").since(1),
]);
