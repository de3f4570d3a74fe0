package api

// Operations of access control, by Kafka's numbers, each a bit of the authorized operations that
// Metadata, DescribeCluster, DescribeGroups and DescribeTopicPartitions name when asked (KIP-430).
const (
	opRead            = 1 << 3
	opWrite           = 1 << 4
	opCreate          = 1 << 5
	opDelete          = 1 << 6
	opAlter           = 1 << 7
	opDescribe        = 1 << 8
	opClusterAction   = 1 << 9
	opDescribeConfigs = 1 << 10
	opAlterConfigs    = 1 << 11
	opIdempotentWrite = 1 << 12
)

// Without an authorizer everybody may do everything that there is to do to a resource of a kind.
const (
	topicOperations   int32 = opRead | opWrite | opCreate | opDelete | opAlter | opDescribe | opDescribeConfigs | opAlterConfigs
	groupOperations   int32 = opRead | opDelete | opDescribe | opDescribeConfigs | opAlterConfigs
	clusterOperations int32 = opCreate | opAlter | opDescribe | opClusterAction | opDescribeConfigs | opAlterConfigs | opIdempotentWrite
)
