"""Where in a sample a concept is: objectives, explainers, and the measures that tell whether a map is right."""
