package controller

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// firstVersionWithIDs is the version of DeleteTopics from which topics are named by id too.
const firstVersionWithIDs = 6

// firstVersionThatSaysDisabled is the version of DeleteTopics from which TOPIC_DELETION_DISABLED exists.
const firstVersionThatSaysDisabled = 3

// deletionTargets are the topics that a request names, in the form of the newest version.
func deletionTargets(req *kmsg.DeleteTopicsRequest) []kmsg.DeleteTopicsRequestTopic {
	if req.Version >= firstVersionWithIDs {
		return req.Topics
	}
	targets := make([]kmsg.DeleteTopicsRequestTopic, len(req.TopicNames))
	for i := range req.TopicNames {
		targets[i].Topic = &req.TopicNames[i]
	}
	return targets
}

// deleteTopics decides DeleteTopics. A topic named twice, in whatever way, is not deleted.
func deleteTopics(v *view, req *kmsg.DeleteTopicsRequest) ([]metadata.Record, *kmsg.DeleteTopicsResponse) {
	if !v.settings.Bool("delete.topic.enable") {
		code := kerr.TopicDeletionDisabled
		if req.Version < firstVersionThatSaysDisabled {
			code = kerr.InvalidRequest
		}
		return nil, refuseDeletion(req, refuse(code, "delete.topic.enable is false"))
	}
	resp := kmsg.NewPtrDeleteTopicsResponse()
	resp.Version = req.Version
	answer := func(name *string, id metadata.UUID, why *refusal) {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic, t.TopicID = name, id
		t.ErrorCode, t.ErrorMessage = why.fields()
		resp.Topics = append(resp.Topics, t)
	}
	targets := deletionTargets(req)
	names, ids := make(map[string]int), make(map[metadata.UUID]int)
	for _, t := range targets {
		switch id := metadata.UUID(t.TopicID); {
		case t.Topic != nil && !id.IsZero():
			answer(t.Topic, id, refuse(kerr.InvalidRequest, "a topic is named by its name or by its id, not by both"))
		case t.Topic != nil:
			names[*t.Topic]++
		case !id.IsZero():
			ids[id]++
		default:
			answer(nil, id, refuse(kerr.InvalidRequest, "neither a name nor an id"))
		}
	}
	var records []metadata.Record
	for _, t := range targets {
		topic, why, answerName := v.deletionTarget(t, names, ids)
		switch {
		case topic == nil && why == nil: // answered already
		case why != nil:
			answer(answerName, idOf(topic, t), why)
		default:
			records = append(records, &metadata.TopicRemovalRecord{TopicId: topic.ID.Bytes()})
			answer(&topic.Name, topic.ID, nil)
		}
	}
	return records, resp
}

func idOf(topic *metadata.Topic, t kmsg.DeleteTopicsRequestTopic) metadata.UUID {
	if topic != nil {
		return topic.ID
	}
	return t.TopicID
}

// deletionTarget finds the topic that is meant, once: what it has answered for leaves the counts.
// Neither topic nor refusal means that there is nothing to answer.
func (v *view) deletionTarget(t kmsg.DeleteTopicsRequestTopic, names map[string]int, ids map[metadata.UUID]int) (topic *metadata.Topic, why *refusal, name *string) {
	id := metadata.UUID(t.TopicID)
	switch {
	case t.Topic != nil && id.IsZero():
		times := names[*t.Topic]
		delete(names, *t.Topic)
		topic, exists := v.image.Topic(*t.Topic)
		switch {
		case times == 0:
			return nil, nil, nil
		case times > 1:
			return nil, refuse(kerr.InvalidRequest, "topic %q is in the request %d times", *t.Topic, times), t.Topic
		case !exists:
			return nil, refuse(kerr.UnknownTopicOrPartition, "there is no topic %q", *t.Topic), t.Topic
		case ids[topic.ID] > 0:
			delete(ids, topic.ID)
			return topic, refuse(kerr.InvalidRequest, "topic %q is also in the request by its id %s", *t.Topic, topic.ID), t.Topic
		}
		return topic, nil, t.Topic
	case t.Topic == nil && !id.IsZero():
		times := ids[id]
		topic, exists := v.image.TopicByID(id)
		if exists && times > 0 && names[topic.Name] == 1 {
			return nil, nil, nil // answered under its name, which comes later
		}
		delete(ids, id)
		switch {
		case times == 0:
			return nil, nil, nil
		case times > 1:
			return nil, refuse(kerr.InvalidRequest, "topic id %s is in the request %d times", id, times), nil
		case !exists:
			return nil, refuse(kerr.UnknownTopicID, "no topic has the id %s", id), nil
		}
		return topic, nil, &topic.Name
	}
	return nil, nil, nil
}

// refuseDeletion answers every topic of a request alike.
func refuseDeletion(req *kmsg.DeleteTopicsRequest, why *refusal) *kmsg.DeleteTopicsResponse {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	resp.Version = req.Version
	for _, t := range deletionTargets(req) {
		r := kmsg.NewDeleteTopicsResponseTopic()
		r.Topic, r.TopicID = t.Topic, t.TopicID
		r.ErrorCode, r.ErrorMessage = why.fields()
		resp.Topics = append(resp.Topics, r)
	}
	return resp
}
