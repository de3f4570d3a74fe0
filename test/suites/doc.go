// Package suites runs the tests that other projects wrote for Apache Kafka against our broker:
// franz-go's, segmentio/kafka-go's, kafka-python's and Apache Kafka's own. It decides which of
// them count, and nothing about how they are fetched or started: that is the business of the
// scripts in BARNABAS_SHARED (by default the folder shared beside the repository), suites/run-*.sh.
//
// Every test of a suite has to pass, unless it stands in left-out.txt with its reason; what stands
// there is not run where a suite can be told so. A test that stands there and passes fails the run
// too, so that the list only says what is true. Tests in the suites' own exclude files, which fail
// on Apache Kafka as well, count for nothing.
//
//	go test -tags compat -count=1 -timeout 120m ./test/suites                          # everything
//	go test -tags compat -count=1 -timeout 30m ./test/suites -slice 3                  # a slice of slices.txt
//	go test -tags compat -count=1 -timeout 30m ./test/suites -run TestSuites/kafka-go  # a suite
//	go test -tags compat -count=1 ./test/suites -run TestSuites/consumer -only 'kafka-it/*#testClassicConsumerListTopics'
//
// Apache Kafka's tests that want settings of their own, or several brokers, get them fresh for each test,
// started by launcher: fresh.txt names those of one broker, clusters.txt those of two to six, and outages.txt
// those that stop most of them. A test on several brokers has its own name in left-out.txt, clusters/CLASS#METHOD.
//
// With -left-out the tests of left-out.txt run too, and of Apache Kafka's own only they: it shows
// which of them have to leave the list. BARNABAS_TEST_SYSTEM=kafka runs all that is said against an
// Apache Kafka, whose verdicts are the measure. A suite's logs are kept in SUITES_RUN, where that
// names a folder; a second suite in the same run writes over them.
package suites
