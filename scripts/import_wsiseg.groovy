/**
 * Import what wsiseg found for the current image (QuPath 0.4 or newer).
 *
 * Looks in the folder `wsiseg` of the project, or in the folder given as argument, for a file with the
 * image's name: NAME.zip, NAME.geojson.gz or NAME.geojson. Detections that are there are replaced.
 *
 * For all images at once: Run > Run for project, or
 *   QuPath script -p project.qpproj -s -a path/to/folder import_wsiseg.groovy
 */
def dir  = args ? args[0] : buildFilePath(PROJECT_BASE_DIR, 'wsiseg')
def base = getCurrentImageNameWithoutExtension()
def file = ['.zip', '.geojson.gz', '.geojson'].collect { new File(dir, base + it) }.find { it.exists() }
if (file == null) {
    println "No file for $base in $dir"
    return
}
clearDetections()
importObjectsFromFile(file.path)
resolveHierarchy()
fireHierarchyUpdate()
println "$base: ${getDetectionObjects().size()} nuclei from ${file.name}"
