{{- define "metsuke.labels" -}}
app.kubernetes.io/part-of: metsuke
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "metsuke.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "metsuke.scraped" -}}
{{- if not .Values.metrics.podMonitor -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .Values.metrics.port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{- define "metsuke.liveness" -}}
httpGet: {path: /healthz, port: metrics}
periodSeconds: 30
timeoutSeconds: 10
{{- end }}

{{- define "metsuke.scrapers" -}}
{{- with .Values.networkPolicy.metricsFrom -}}
- from: {{- toYaml . | nindent 4 }}
  ports:
    - {protocol: TCP, port: {{ $.Values.metrics.port }}}
{{- end }}
{{- end }}
