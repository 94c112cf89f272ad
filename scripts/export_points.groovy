/**
 * Export clicked nuclei of the current image for training (QuPath 0.4 or newer).
 *
 * Click nuclei with the points tool, and draw an area annotation around each region in which EVERY nucleus
 * is clicked. Point annotations (with or without a class) and area annotations go, as GeoJSON, into
 * `wsiseg-points/NAME.geojson` of the project.
 */
def dir = buildFilePath(PROJECT_BASE_DIR, 'wsiseg-points')
mkdirs(dir)
def points = getAnnotationObjects().findAll { it.getROI()?.isPoint() }
def areas  = getAnnotationObjects().findAll { it.getROI()?.isArea() }
if (points.isEmpty()) {
    println 'No clicked points: use the points tool first'
    return
}
def path = buildFilePath(dir, getCurrentImageNameWithoutExtension() + '.geojson')
exportObjectsToGeoJson(points + areas, path, 'FEATURE_COLLECTION')
def clicks = points.sum { it.getROI().getNumPoints() }
println "$path: $clicks points, ${areas.size()} regions"
