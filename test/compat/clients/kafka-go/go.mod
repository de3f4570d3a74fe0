module barnabas/test/compat/clients/kafka-go

go 1.26.0

require (
	github.com/klauspost/compress v1.15.9 // indirect
	github.com/pierrec/lz4/v4 v4.1.15 // indirect
)

require (
	barnabas/test/compat/clients/program v0.0.0
	github.com/segmentio/kafka-go v0.4.51
)

replace barnabas/test/compat/clients/program => ../program
