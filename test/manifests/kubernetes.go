package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// checkManifests returns what is wrong with the documents in text: fields that
// Kubernetes does not know or that have another type, and names that lead nowhere.
func checkManifests(text []byte) (complaints []string) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return complaints
		}
		if err != nil {
			return append(complaints, err.Error())
		}
		for _, c := range checkManifest(doc) {
			complaints = append(complaints, fmt.Sprintf("document %d: %s", n, c))
		}
	}
}

func checkManifest(doc []byte) []string {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &meta); err != nil {
		return []string{err.Error()}
	}
	var pod *corev1.PodTemplateSpec
	var claims []corev1.PersistentVolumeClaim
	var err error
	switch kind := meta.APIVersion + " " + meta.Kind; kind {
	case "v1 ConfigMap":
		err = decode(doc, new(corev1.ConfigMap))
	case "apps/v1 Deployment":
		var d appsv1.Deployment
		err = decode(doc, &d)
		pod = &d.Spec.Template
	case "apps/v1 StatefulSet":
		var s appsv1.StatefulSet
		err = decode(doc, &s)
		pod, claims = &s.Spec.Template, s.Spec.VolumeClaimTemplates
	default:
		return []string{fmt.Sprintf("%q is of no kind that is known here", kind)}
	}
	if err != nil {
		return []string{err.Error()}
	}
	if pod == nil {
		return nil
	}
	return checkPod(pod.Spec, claims)
}

// decode decodes doc as the API server does with strict field validation: names
// are case-sensitive, unknown ones and duplicates are errors.
func decode(doc []byte, into any) error {
	text, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return err
	}
	strictErrs, err := json.UnmarshalStrict(text, into)
	return errors.Join(append(strictErrs, err)...)
}

// checkPod looks for mounts of no volume and probes of no port.
func checkPod(pod corev1.PodSpec, claims []corev1.PersistentVolumeClaim) (complaints []string) {
	volumes := make(map[string]bool)
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range claims {
		volumes[c.Name] = true
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				complaints = append(complaints, fmt.Sprintf("container %s mounts %q, which is no volume", c.Name, m.Name))
			}
		}
		ports := make(map[string]bool)
		for _, p := range c.Ports {
			ports[p.Name] = true
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil {
				continue
			}
			if port := probe.HTTPGet.Port; port.Type == intstr.String && !ports[port.StrVal] {
				complaints = append(complaints, fmt.Sprintf("container %s is probed at %q, which is no port of it", c.Name, port.StrVal))
			}
		}
	}
	return complaints
}
